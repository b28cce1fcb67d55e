"""Ranks with different graphs to warm up agree equally often: one that did not would wait for ever.

Two ranks are two threads here; what they agree on goes through a barrier, as through a collective.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest

WAIT_SECONDS = 20


class Graphs:
    """A number of graphs beside the forwards, without memory of their own."""

    takes_room = False

    def __init__(self, number: int) -> None:
        self.number = number

    def warm_up_one(self) -> bool:
        self.number -= 1
        return self.number >= 0


class Agreements:
    """The least of each value over two threads."""

    def __init__(self) -> None:
        self._values: list[tuple[int, ...]] = []
        self._barrier = Barrier(2)

    def least(self, *values: int) -> tuple[int, ...]:
        self._values.append(values)
        self._barrier.wait(WAIT_SECONDS)
        first, second = self._values[-2:]
        assert len(first) == len(second)
        self._barrier.wait(WAIT_SECONDS)
        return tuple(map(min, first, second))


def rank(last_stage: bool) -> Any:
    """The warm-up service of a rank; a stage that is not the last has no sampler's graphs."""
    from vllm_hpu.warmup.service import WarmUp

    graphs = [Graphs(3), Graphs(2)] if last_stage else []
    runner = SimpleNamespace(
        device="hpu:0",
        small_graphs=graphs,
        first_graphs=graphs,
        sampler=object() if last_stage else None,
        step_sampler=object() if last_stage else None,
        is_last_pp_rank=last_stage,
    )
    service = WarmUp.__new__(WarmUp)
    service._runner, service._small_bytes, service._room, service._reserve = runner, 0, 0, 0
    return service


def warm_up(service: Any) -> int:
    """All of it; returns how often the rank asked for more."""
    service._measure_sampler()
    asked = 1
    while service._warm_small():
        asked += 1
    return asked


def test_stages_of_a_pipeline_agree_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm_hpu.distributed import agreement

    monkeypatch.setattr(agreement, "least", Agreements().least)
    ranks = [rank(last_stage=False), rank(last_stage=True)]
    with ThreadPoolExecutor(2) as threads:
        asked = list(threads.map(warm_up, ranks))
    # One graph of each part was measured first, two and one are left; then there is no more.
    assert asked == [4, 4]
    assert not any(graphs.number > 0 for graphs in ranks[1]._runner.small_graphs)
    assert ranks[0]._room == ranks[1]._room > 0
