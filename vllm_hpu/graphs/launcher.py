"""Run the forward of a planned step in the chosen mode."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from vllm_hpu.graphs.mode import Mode
from vllm_hpu.graphs.per_shape import running
from vllm_hpu.liveness.pulse import away

Forward = Callable[[], Any]


class Launcher:
    """Holds what a mode keeps per shape: captured graphs in ``graphs`` mode, nothing otherwise."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self._graphs: dict[Hashable, Any] = {}
        self._launched: set[Hashable] = set()

    def launch(self, key: Hashable, forward: Forward) -> Any:
        """Run ``forward`` and return its result.

        ``forward`` must read its inputs from tensors that stay where they are: in graphs mode it is
        called once per key and replayed afterwards.
        """
        if key in self._launched:
            return self._launch(key, forward)
        with away():  # the first time compiles
            result = self._launch(key, forward)
        self._launched.add(key)
        return result

    def _launch(self, key: Hashable, forward: Forward) -> Any:
        if self.mode is Mode.COMPILE:
            with running(key):
                return forward()
        if self.mode is Mode.EAGER:
            return forward()
        graph = self._graphs.get(key)
        if graph is not None:
            return graph.replay()
        from vllm_hpu.device.graphs import CapturedGraph

        graph = CapturedGraph(forward)
        self._graphs[key] = graph
        return graph.output

    def clear(self) -> None:
        """Drop captured graphs, e.g. after weights have moved."""
        self._graphs.clear()
        self._launched.clear()
