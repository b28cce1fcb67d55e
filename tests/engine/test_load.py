"""After warm-up a mixed load compiles nothing: counted by the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.jobs import Job, Pass, run_jobs

REQUESTS = 200
# Adapters and drafts, with all that vLLM lets requests ask for beside them.
DRAFTED = {
    "enable_lora": True,
    "max_lora_rank": 8,
    "speculative_config": {
        "method": "ngram",
        "num_speculative_tokens": 3,
        "prompt_lookup_max": 4,
    },
}
LOADS = [("compile", "special"), ("graphs", "special"), ("graphs", "drafted")]


@pytest.fixture(scope="module", params=LOADS, ids="-".join)
def load_run(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> dict[str, Any]:
    mode, wishes = request.param
    more = {"requests": REQUESTS, "longest": 600, "seed": 1, "wishes": wishes}
    engine: dict[str, Any] = {"max_num_seqs": 16}
    if wishes == "drafted":
        more["adapter"] = str(tiny("llama_lora_a"))
        engine |= DRAFTED
    load = Pass(prompts=[], method="load", more=more)
    run = run_jobs(mode, [Job("load", str(tiny("llama")), [load], engine=engine)])["load"]
    assert "error" not in run, run["error"]
    return run


def test_no_compilations(load_run: dict[str, Any]) -> None:
    """In graphs mode operators between graphs are compiled, too: the lazy mode gathers them."""
    assert load_run["warm_up_compilations"] > 0
    assert load_run["compilations"] == 0


def test_every_request_ends_once(load_run: dict[str, Any]) -> None:
    answers = load_run["passes"][0]
    assert len(answers) == REQUESTS
    for answer in answers:
        if answer["cancelled"]:
            assert answer["final"] <= 1
        else:
            assert answer["final"] == 1
            assert answer["tokens"] > 0
