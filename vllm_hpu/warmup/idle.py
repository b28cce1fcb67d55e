"""The engine core's part of warm-up: when to compile the graphs a server did not wait for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from vllm.logger import init_logger

from vllm_hpu.metrics.progress import WarmupProgress

logger = init_logger("vllm.plugins.vllm_hpu.warmup")

GAP_SECONDS = 0.1
"""An engine without requests for so long is idle; a client that asks again at once is not held up
by a compilation after every answer."""


class IdleWarmUp:
    """Compiles one graph at a time, through remote calls to all workers at once.

    Attributes:
        progress: what the first rank last reported; None before the first graph.
    """

    def __init__(self, call_workers: Callable[[str], list[Any]], load_seconds: float) -> None:
        """``load_seconds`` is the least time between graphs compiled under load; 0 for none."""
        self.progress: WarmupProgress | None = None
        self.pending = True
        self._call = call_workers
        self._load_seconds = load_seconds
        self._last_work = self._last_graph = time.monotonic()

    def announce(self) -> None:
        """Tell the workers, before they warm up, that they need not compile everything."""
        self.pending = self._call("leave_graphs_to_idle_gaps")[0]

    def busy(self) -> bool:
        """Note that there are requests; whether a graph is due all the same."""
        self._last_work = time.monotonic()
        due = self._last_work - self._last_graph >= self._load_seconds
        return self.pending and self._load_seconds > 0 and due

    def seconds_until_gap(self) -> float:
        """How much longer the engine must be without requests to count as idle."""
        return max(0.0, self._last_work + GAP_SECONDS - time.monotonic())

    def compile_one(self) -> None:
        """Compile the next graph; never raises: without it the server serves as before."""
        if self.progress is None:
            logger.info("Warm-up goes on in idle gaps.")
        try:
            self.progress = self._call("warm_up_one")[0]
        except Exception:
            logger.exception("Warm-up in idle gaps has failed and ends here.")
            self.pending = False
            return
        self._last_graph = time.monotonic()
        if self.progress.finished:
            self.pending = False
            logger.info(
                "Warm-up is complete: %d of %d graphs, %d of them from a cache, %.1f s, %.2f GiB.",
                self.progress.ready,
                self.progress.planned,
                self.progress.cached,
                self.progress.seconds,
                self.progress.bytes / (1 << 30),
            )
