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


def test_plain_requests_compile_no_gathered_graph_either(tiny: Callable[[str], Path]) -> None:
    """In lazy mode a card compiles every operator outside of HPU graphs, too: there is none."""
    more = {"requests": 60, "longest": 600, "seed": 1, "plain": True}
    load = Pass(prompts=[], method="load", more=more)
    job = Job(
        "load",
        str(tiny("llama")),
        [load],
        engine={"max_num_seqs": 8},
        env={"GAUDI_EMULATOR_LAZY_GRAPHS": "1"},
    )
    run = run_jobs("graphs", [job])["load"]
    assert "error" not in run, run["error"]
    assert len(run["passes"][0]) == 60
    assert run["compilations"] == 0
