"""After warm-up a mixed load compiles nothing: counted by the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.cases import few_graphs
from tests.engine.jobs import Job, Pass, run_jobs

# Where the default plan is the subject; fewer where another proposer is.
REQUESTS, FEWER_REQUESTS = 200, 60
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
# Drafters with a model: the method, and the tiny model.
DRAFTERS = {"eagle": "llama_eagle", "draft_model": "llama_draft"}
LOADS = [
    ("compile", "special"),
    ("graphs", "special"),
    ("graphs", "drafted"),
    ("graphs", "eagle"),
    ("graphs", "draft_model"),
]
SLOW_LOADS = [
    pytest.param((mode, kind), marks=pytest.mark.slow)
    for mode, kind in (("compile", "eagle"), ("compile", "draft_model"))
]


@pytest.fixture(scope="module", params=[*LOADS, *SLOW_LOADS], ids="-".join)
def load_run(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> dict[str, Any]:
    mode, kind = request.param
    more = {"requests": REQUESTS, "longest": 600, "seed": 1, "wishes": kind}
    engine: dict[str, Any] = {"max_num_seqs": 16}
    plan: dict[str, str] = {}
    if kind == "drafted":
        more["adapter"] = str(tiny("llama_lora_a"))
        engine |= DRAFTED
    elif kind in DRAFTERS:
        more |= {"wishes": "drafted", "requests": FEWER_REQUESTS}
        plan = few_graphs(rows=16)
        engine["speculative_config"] = {
            "method": kind,
            "model": str(tiny(DRAFTERS[kind])),
            "num_speculative_tokens": 3,
        }
    load = Pass(prompts=[], method="load", more=more)
    job = Job("load", str(tiny("llama")), [load], engine=engine, env=plan)
    run = run_jobs(mode, [job])["load"]
    assert "error" not in run, run["error"]
    return run | {"requests": more["requests"]}


def test_no_compilations(load_run: dict[str, Any]) -> None:
    """In graphs mode operators between graphs are compiled, too: the lazy mode gathers them."""
    assert load_run["warm_up_compilations"] > 0
    assert load_run["compilations"] == 0


def test_every_request_ends_once(load_run: dict[str, Any]) -> None:
    answers = load_run["passes"][0]
    assert len(answers) == load_run["requests"]
    for answer in answers:
        if answer["cancelled"]:
            assert answer["final"] <= 1
        else:
            assert answer["final"] == 1
            assert answer["tokens"] > 0
