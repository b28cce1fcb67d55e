"""A graph of device work whose recording is a compilation, unless its recipe is known."""

from __future__ import annotations

import time

from . import _C, recipes
from .operator_cost import Cost

KIND = "graph_capture"
"""The kind under which the device counts these compilations."""


class Graph(_C.Graph):
    """Device work of one thread, recorded once and replayed without Python."""

    _started_ns = 0
    _observed_cost: tuple[str, Cost, int, set[str]] | None = None

    def capture_begin(self) -> None:
        """Record what this thread runs from now on."""
        super().capture_begin()
        self._observed_cost = None
        self._started_ns = time.perf_counter_ns()

    def capture_end(self) -> None:
        """End the recording and compile it."""
        super().capture_end()
        spent_us = (time.perf_counter_ns() - self._started_ns) // 1000
        operators = len(self.operators())
        recipes.obtain(KIND, self.description, f"{operators} operators", operators, spent_us)
