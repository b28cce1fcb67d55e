"""In graph mode a step is three launches, mixed or not, counted by the device of a live engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", params=([], ["--random"]), ids=("greedy", "random"))
def steps(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.steps", "--run", "graphs", "--repeats", "1"]
    command += ["--model", str(tiny("llama")), "--batch", "4", *request.param]
    environment = os.environ | {"PT_HPU_LAZY_MODE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    done = subprocess.run(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("kind", ["decode", "mixed"])
def test_three_launches(steps: dict[str, Any], kind: str) -> None:
    phases = steps[kind]
    assert phases["forward"]["launches"] == 1
    assert phases["sampling and feedback"]["launches"] == 2
    assert all(phase["total_compilations"] == 0 for phase in phases.values())


def test_one_copy_of_integers(steps: dict[str, Any]) -> None:
    assert steps["decode"]["forward"]["h2d_copies"] == 1
