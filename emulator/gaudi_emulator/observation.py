"""Who listens to the device? The one place that connects listeners to its events.

With nobody listening the device does no more than ask whether somebody is.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from . import _C
from .operator_cost import Cost, collective_cost, operator_cost

__all__ = ["Launch", "Listener", "cost_of_graph", "listening", "start", "stop"]


class Launch:
    """One launch: an operator, a compiled region, a graph (replayed or lazy) or a collective.

    Attributes:
        kind: "operator", "region", "graph", "lazy" or "collective".
        name: the operator, or what tells the graph from others.
        card: the card it ran on.
        cost: all its work.
        operators: operators inside.
        thread: the host's thread that launched it.
        started_ns, ended_ns: on the host's monotonic clock.
        unknown: operators without a cost formula, counted as nothing.
    """

    __slots__ = (
        "card",
        "cost",
        "ended_ns",
        "kind",
        "name",
        "operators",
        "started_ns",
        "thread",
        "unknown",
    )

    def __init__(self, kind: str, name: str, card: int, started_ns: int) -> None:
        self.kind, self.name, self.card = kind, name, card
        self.started_ns = self.ended_ns = started_ns
        self.cost, self.operators = Cost(), 0
        self.unknown: set[str] = set()
        self.thread = threading.get_native_id()

    def add(self, name: str, cost: Cost | None) -> None:
        """One more operator; None if its cost is not known."""
        self.operators += 1
        if cost is None:
            self.unknown.add(name)
        else:
            self.cost += cost


class Listener:
    """What a listener may be told; the default is not to care."""

    def launched(self, launch: Launch) -> None:
        """Work has been launched."""

    def copied(self, card: int, to_card: bool, size: int, started_ns: int, ended_ns: int) -> None:
        """Bytes have moved between host and card."""

    def host_waited(self, what: str, at_ns: int) -> None:
        """The host waited for a value or for the device."""

    def compiled(self, kind: str, detail: str, microseconds: int, ended_ns: int) -> None:
        """A graph has been compiled."""


@cache
def _overload(name: str, overload: str) -> torch._ops.OpOverload:
    namespace, _, operator = name.partition("::")
    return getattr(getattr(getattr(torch.ops, namespace), operator), overload or "default")


def _cost(name: str, overload: str, args: tuple, results: tuple) -> Cost | None:
    try:
        return operator_cost(_overload(name, overload), args, results)
    except NotImplementedError:
        return None


def _fill(launch: Launch, calls: list[tuple[str, str, tuple, tuple]]) -> None:
    for name, overload, args, results in calls:
        launch.add(name, _cost(name, overload, args, results))


def cost_of_graph(graph: Any) -> Cost:
    """Work of one replay of a captured graph.

    Args:
        graph: a `gaudi_emulator.graph.Graph`, or the bridge's ``HPUGraph``.

    Raises:
        NotImplementedError: an operator without a formula is in it.
    """
    device_graph = graph if isinstance(graph, _C.Graph) else graph.hpu_graph
    total = Cost()
    for name, overload, args, results in device_graph.recorded_calls():
        total += operator_cost(_overload(name, overload), args, results)
    return total


class _Hub:
    """Receives the device's events and hands launches to all listeners."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.lock = threading.Lock()
        self._local = threading.local()
        self._gathered: dict[int, Launch] = {}  # by card
        self._gathering = threading.Lock()

    def operator_ran(
        self,
        kind: str,
        name: str,
        overload: str,
        card: int,
        args: tuple,
        results: tuple,
        started_ns: int,
        ended_ns: int,
    ) -> None:
        cost = _cost(name, overload, args, results)
        if kind == "lazy":
            with self._gathering:
                gathered = self._gathered.setdefault(card, Launch(kind, "", card, started_ns))
                gathered.ended_ns = ended_ns
                gathered.add(name, cost)
            return
        region: Launch | None = getattr(self._local, "region", None)
        if kind == "operator":
            region = Launch(kind, name, card, started_ns)
        elif region is None:
            region = self._local.region = Launch(kind, "", card, started_ns)
            self._local.names = []
        region.ended_ns = ended_ns
        region.add(name, cost)
        if kind == "region":
            shapes = [tuple(t.shape) for t in results if isinstance(t, torch.Tensor)]
            self._local.names.append((name, *shapes))
        else:
            self._tell(region)

    def lazily_launched(self, card: int, graph: str) -> None:
        with self._gathering:
            launch = self._gathered.pop(card, None)
        if launch is None:  # none of its operators was observed
            launch = Launch("lazy", "", card, time.monotonic_ns())
        launch.name = _label("lazy", launch.operators, graph)
        self._tell(launch)

    def forget_gathered(self) -> None:
        with self._gathering:
            self._gathered.clear()

    def region_ended(self, ended_ns: int) -> None:
        region: Launch | None = getattr(self._local, "region", None)
        if region is None:  # nothing ran inside
            region = Launch("region", "", _C.current_card(), ended_ns)
            self._local.names = []
        self._local.region = None
        region.ended_ns = ended_ns
        region.name = _label("region", region.operators, self._local.names)
        self._tell(region)

    def replayed(self, graph: Any, started_ns: int, ended_ns: int) -> None:
        launch = Launch("graph", "", graph.card, started_ns)
        launch.ended_ns = ended_ns
        if graph._observed_cost is None:
            once = Launch("graph", "", graph.card, started_ns)
            _fill(once, graph.recorded_calls())
            name = _label("graph", once.operators, graph.description)
            graph._observed_cost = (name, once.cost, once.operators, once.unknown)
        launch.name, launch.cost, launch.operators, launch.unknown = graph._observed_cost
        self._tell(launch)

    def collective(
        self, kind: str, ranks: int, card: int, written: Sequence, read: Sequence
    ) -> None:
        """A collective has started outside of graphs; told by the bridge."""
        launch = Launch("collective", kind, card, time.monotonic_ns())
        launch.add(kind, collective_cost(kind, ranks, written, read))
        self._tell(launch)

    def copied(self, *event: Any) -> None:
        for listener in self.listeners:
            listener.copied(*event)

    def host_waited(self, *event: Any) -> None:
        for listener in self.listeners:
            listener.host_waited(*event)

    def compiled(self, *event: Any) -> None:
        for listener in self.listeners:
            listener.compiled(*event)

    def _tell(self, launch: Launch) -> None:
        for listener in self.listeners:
            listener.launched(launch)


def _label(kind: str, operators: int, identity: object) -> str:
    """Equal for equal work, in every process."""
    digest = hashlib.sha256(repr(identity).encode()).hexdigest()
    return f"{kind} {digest[:8]} ({operators} operators)"


hub = _Hub()


def start(listener: Listener) -> None:
    """Tell `listener` of everything from now on; the device must be active."""
    with hub.lock:
        hub.listeners = [*hub.listeners, listener]
        _C.observe(hub)


def stop(listener: Listener) -> None:
    """Tell it no more."""
    with hub.lock:
        hub.listeners = [other for other in hub.listeners if other is not listener]
        if not hub.listeners:
            _C.observe(None)
            hub.forget_gathered()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell `listener` of what happens inside; what the lazy mode gathers ends with the block."""
    _C.cut_lazy_graphs()
    start(listener)
    try:
        yield
        _C.cut_lazy_graphs()
    finally:
        stop(listener)


def _forget_in_child() -> None:
    """A forked process is not what was asked to be observed."""
    if hub.listeners:
        hub.listeners = []
        _C.observe(None)


os.register_at_fork(after_in_child=_forget_in_child)
