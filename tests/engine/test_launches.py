"""In graph mode a step is three launches, mixed or not, counted by the device of a live engine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fork_server import fork_server, last_object


@pytest.fixture(scope="module", params=([], ["--random"]), ids=("greedy", "random"))
def steps(
    request: pytest.FixtureRequest,
    tiny: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    command = ["--run", "graphs", "--repeats", "1", "--model", str(tiny("llama")), "--batch", "4"]
    own = {"PT_HPU_LAZY_MODE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    log = tmp_path_factory.mktemp("launches") / "log"
    code = fork_server().run(
        "benchmarks.steps", *command, *request.param, log=log, environment=os.environ | own
    )
    assert code == 0, log.read_text()[-3000:]
    result: dict[str, Any] = json.loads(last_object(log))
    return result


@pytest.mark.parametrize("kind", ["decode", "mixed"])
def test_three_launches(steps: dict[str, Any], kind: str) -> None:
    phases = steps[kind]
    assert phases["forward"]["launches"] == 1
    assert phases["sampling and feedback"]["launches"] == 2
    assert all(phase["total_compilations"] == 0 for phase in phases.values())


def test_one_copy_of_integers(steps: dict[str, Any]) -> None:
    assert steps["decode"]["forward"]["h2d_copies"] == 1
