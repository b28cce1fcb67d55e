"""Which graph a step runs in while not every planned key has one."""

from bisect import insort
from collections.abc import Callable, Iterable

from vllm_hpu.shapes.cost import padded_work
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.plan import ShapePlan
from vllm_hpu.shapes.step import Step

__all__ = ["MEMO", "ReadySet", "padded_work"]

# Steps whose graph is remembered; a decode batch repeats few of them for long.
MEMO = 4096


class ReadySet:
    """The keys that have a graph, and for a step the one it is launched with.

    Attributes:
        missed: how many steps had to do with another key than their own, by their own key.
    """

    def __init__(self, plan: ShapePlan, cost: Callable[[GraphKey], float]) -> None:
        """``cost`` is what a launch of a key costs, in any unit; it only orders keys."""
        self.missed: dict[GraphKey, int] = {}
        self._plan = plan
        self._cost = cost
        self._ready: set[GraphKey] = set()
        self._cheapest_first: list[GraphKey] = []
        self._stand_ins: dict[Step, GraphKey] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._ready

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: GraphKey) -> None:
        """``key`` has a graph from now on."""
        if key in self._ready:
            return
        self._ready.add(key)
        insort(self._cheapest_first, key, key=self._cost)
        self._stand_ins.clear()
        self.missed.pop(key, None)

    def update(self, keys: Iterable[GraphKey]) -> None:
        for key in keys:
            self.add(key)

    def dispatch(self, step: Step) -> GraphKey:
        """The step's own key if it is ready, else the cheapest ready one that covers the step.

        If none does, the answer is the step's own key, which is not ready.
        """
        own = self._plan.dispatch(step)
        if own in self._ready:
            return own
        self.missed[own] = self.missed.get(own, 0) + 1
        stand_in = self._stand_ins.get(step)
        if stand_in is None:
            stand_in = next((key for key in self._cheapest_first if key.covers(step)), own)
            if len(self._stand_ins) >= MEMO:
                self._stand_ins.clear()
            self._stand_ins[step] = stand_in
        return stand_in
