"""What is predicted of an engine, against what its device counts: memory and the cost of steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.cases import few_graphs
from tests.engine.jobs import Job, Pass, run_jobs

DTYPES = ("float32", "bfloat16")
# The one-hot products of a decode step and the rounding of its rows to a block.
FLOPS_TOLERANCE = 0.01
# The model counts what a kernel must move. The device adds what every operator reads and writes.
LEAST_BYTES = 0.2


@pytest.fixture(scope="module")
def runs(tiny: Callable[[str], Path]) -> dict[str, dict[str, Any]]:
    asked = [Pass([], method="predictions")]
    engine = {"block_size": 32}
    jobs = [
        Job(dtype, str(tiny("llama")), asked, engine | {"dtype": dtype}, few_graphs(rows=8))
        for dtype in DTYPES
    ]
    return run_jobs("eager", jobs)


def found(runs: dict[str, dict[str, Any]], dtype: str) -> dict[str, Any]:
    assert "error" not in runs[dtype], runs[dtype]["error"]
    [[answer]] = runs[dtype]["passes"]
    return answer


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_costs_what_the_device_counts(dtype: str, runs: dict[str, Any]) -> None:
    steps = found(runs, dtype)["steps"]
    assert len(steps) > 10
    for name, step in steps.items():
        assert step["unknown"] == [], name
        predicted, counted = step["flops"]
        assert predicted == pytest.approx(counted, rel=FLOPS_TOLERANCE), name
        predicted, counted = step["bytes"]
        assert LEAST_BYTES * counted < predicted < counted, name


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_is_what_is_measured(dtype: str, runs: dict[str, Any]) -> None:
    """An engine is refused by the prediction, so what is taken must be near it."""
    answer = found(runs, dtype)
    predicted, measured = answer["predicted"], answer["measured"]
    assert (predicted["kv_block"], predicted["kv_least"]) == (
        measured["kv_block"],
        measured["kv_least"],
    )
    # To the byte; vLLM's loader counts tables of rotary positions beside the parameters.
    assert predicted["weights"] == answer["parameters"] < measured["weights"]
    # Rotary angles come after the loader has counted; they are much for a tiny model only.
    buffers = measured["buffers"] - answer["derived"]
    assert predicted["buffers"] == pytest.approx(buffers, rel=0.2)
    for part in ("steps", "sampler"):
        assert measured[part] <= predicted[part] <= 2 * measured[part], part
