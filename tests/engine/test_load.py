"""After warm-up a mixed load compiles nothing: counted by the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.jobs import Job, Pass, run_jobs

REQUESTS = 200


@pytest.fixture(scope="module", params=("compile", "graphs"))
def load_run(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> dict[str, Any]:
    load = Pass(prompts=[], method="load", more={"requests": REQUESTS, "longest": 600, "seed": 1})
    job = Job("load", str(tiny("llama")), [load], engine={"max_num_seqs": 16})
    run = run_jobs(request.param, [job])["load"]
    assert "error" not in run, run["error"]
    return run


def test_no_compilations(load_run: dict[str, Any]) -> None:
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
