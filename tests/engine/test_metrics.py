"""Metrics of an offline engine, `llm.get_metrics()`, and the log line of a step outside the plan.

The numbers are compared with what the device counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fork_server import fork_server


class Run(NamedTuple):
    results: dict[str, Any]
    log: str

    def value(self, when: str, name: str, **labels: str) -> float:
        """The sum of the values of ``name`` with ``labels`` at that moment."""
        found = [
            value
            for shown, has, value in self.results[when]["metrics"]
            if shown == name and labels.items() <= has.items()
        ]
        assert found, f"{name} {labels} is not shown"
        return sum(found)


@pytest.fixture(scope="module", params=("compile", "graphs"))
def run(
    request: pytest.FixtureRequest,
    tiny: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    out = tmp_path_factory.mktemp("metrics") / "results.json"
    own = {
        "PT_HPU_LAZY_MODE": "1" if request.param == "graphs" else "0",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "INFO",
        "OMP_NUM_THREADS": "1",
    }
    file = out.with_name("log")
    code = fork_server().run(
        "tests.engine.metrics_case",
        str(tiny("llama")),
        str(out),
        log=file,
        environment=os.environ | own,
    )
    log = file.read_text()
    assert code == 0, log[-3000:]
    return Run(json.loads(out.read_text()), log)


def test_compilations_are_those_the_device_counts(run: Run) -> None:
    for when in ("started", "planned", "bounded", "beyond"):
        shown = run.value(when, "vllm:hpu_compilations")
        assert shown == run.results[when]["compilations"]
    assert run.value("started", "vllm:hpu_compilations", phase="warm_up") > 0
    # An offline engine has no idle gaps: everything is compiled before the first request.
    assert run.value("beyond", "vllm:hpu_compilations", phase="idle_gap") == 0


def test_planned_steps_compile_nothing(run: Run) -> None:
    assert run.value("planned", "vllm:hpu_compilations", phase="serving") == 0
    assert run.value("planned", "vllm:hpu_steps", graph="planned") == 2
    assert run.value("planned", "vllm:hpu_steps") == 2
    planned = run.value("started", "vllm:hpu_warmup_graphs", state="planned")
    assert run.value("started", "vllm:hpu_warmup_graphs", state="ready") == planned > 0


def test_rows_that_are_too_many_together_wait(run: Run) -> None:
    """Two requests whose contexts do not fit into a planned step run one after the other."""
    assert run.value("bounded", "vllm:hpu_steps", graph="outside_plan") == 0
    assert run.value("bounded", "vllm:hpu_compilations", phase="serving") == 0
    assert run.value("bounded", "vllm:hpu_steps") > run.value("planned", "vllm:hpu_steps") + 2
    [line] = [line for line in run.log.splitlines() if "as much context as fits" in line]
    assert "4 in prefill rows" in line


def test_steps_outside_the_plan_are_counted_and_logged_once(run: Run) -> None:
    assert run.value("beyond", "vllm:hpu_steps", graph="outside_plan") == 2
    assert run.value("beyond", "vllm:hpu_compilations", phase="serving") > 0
    lines = [line for line in run.log.splitlines() if "outside the plan" in line]
    assert len(lines) == 1
    assert "4 in prefill rows" in lines[0]
    assert "lower --max-num-batched-tokens" in lines[0]
