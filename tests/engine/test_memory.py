"""A card with too little memory: a smaller plan or a clear refusal, never an error in serving."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.jobs import MODES, Job, Pass, run_jobs

Tiny = Callable[[str], Path]

# Limits whose largest step takes hundreds of MiB in a model of a few MiB.
LARGE = {
    "kv_cache_memory_bytes": None,
    "max_model_len": 1024,
    "max_num_batched_tokens": 1024,
    "max_num_seqs": 32,
}
SMALL = {**LARGE, "max_num_batched_tokens": 256, "max_num_seqs": 16}
FEW = {**SMALL, "num_gpu_blocks_override": 100}
FLAG = re.compile(r"--(max-[a-z-]+) (\d+)")


def load(requests: int) -> Pass:
    return Pass([], method="load", more={"requests": requests, "longest": 900, "seed": 5})


def shared_prefix() -> Pass:
    """Prompts that share nearly everything: together more blocks than there are."""
    prompts: list[Any] = [[20 + at % 100 for at in range(800)] + [30 + row] for row in range(24)]
    greedy = {"temperature": 0, "max_tokens": 4, "ignore_eos": True}
    return Pass(prompts[:1] + prompts, greedy)


def served(run: dict[str, Any]) -> None:
    """All requests of :func:`load` were answered, and no allocation failed."""
    assert "error" not in run, run["error"]
    assert run["out_of_memory"] == 0
    for answer in run["passes"][0]:
        assert answer["cancelled"] or answer["final"] == 1
    assert all(answer["tokens"] for answer in run["passes"][1])


def ways_out(error: str) -> list[dict[str, int]]:
    """Engine arguments that a refusal offers, each way by itself."""
    offered = error.rpartition("Largest limits that fit:")[2]
    return [
        {flag.replace("-", "_"): int(value) for flag, value in FLAG.findall(way)}
        for way in offered.split(", or ")
        if FLAG.search(way)
    ]


@pytest.fixture(scope="module")
def tight(tiny: Tiny) -> dict[str, dict[str, Any]]:
    """Engines on a card of 48 MiB with HPU graphs, where every graph keeps its memory."""
    jobs = [
        Job("small", str(tiny("llama")), [load(30), shared_prefix()], engine=SMALL),
        # Not twice what one of these prompts has, so rows that share it wait for each other.
        Job("few blocks", str(tiny("llama")), [load(10), shared_prefix()], engine=FEW),
        Job("large", str(tiny("llama")), [], engine={**LARGE, "max_num_batched_tokens": 2048}),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAUDI_EMULATOR_MEMORY", "48MiB")
        return run_jobs("graphs", jobs)


def test_a_tight_card_serves(tight: dict[str, dict[str, Any]]) -> None:
    served(tight["small"])
    assert tight["small"]["compilations"] == 0


def test_steps_stay_within_the_plan(tight: dict[str, dict[str, Any]]) -> None:
    """Rows of a common prefix count its blocks once each: together they exceed the cache."""
    served(tight["few blocks"])
    assert tight["few blocks"]["compilations"] == 0
    small, few = (tight[name]["passes"][1] for name in ("small", "few blocks"))
    assert [answer["tokens"] for answer in few] == [answer["tokens"] for answer in small]
    assert sum(answer["cached_tokens"] > 700 for answer in few) >= 20


def test_a_refusal_says_what_fits(tight: dict[str, dict[str, Any]]) -> None:
    error = tight["large"]["error"]
    assert "ConfigurationError: The engine does not fit into the card's memory" in error
    for words in ("measured", "weights", "smallest KV cache", "--gpu-memory-utilization"):
        assert words in error
    assert ways_out(error)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("memory", ["2GiB", "1GiB", "512MiB", "256MiB", "64MiB", "24MiB"])
def test_any_card_serves_or_refuses(
    mode: str, memory: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAUDI_EMULATOR_MEMORY", memory)
    passes = [load(60), shared_prefix()]
    path = str(tiny("llama"))
    run = run_jobs(mode, [Job("asked", path, passes, engine=LARGE)])["asked"]
    if "error" not in run:
        served(run)
        return
    assert "ConfigurationError: The engine does not fit into the card's memory" in run["error"]
    ways = ways_out(run["error"])
    assert ways, run["error"]
    short = [Pass([[20, 21, 22]], {"temperature": 0, "max_tokens": 4, "ignore_eos": True})]
    jobs = [
        Job(f"way {number}", path, short, engine={**LARGE, **way})
        for number, way in enumerate(ways)
    ]
    for name, other in run_jobs(mode, jobs).items():
        assert "error" not in other, f"{name}: {ways}\n{other['error']}"
        assert other["out_of_memory"] == 0
