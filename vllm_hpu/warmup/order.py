"""In which order graphs are compiled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.plan import ShapePlan

# How many steps of a kind to expect when no traffic was seen: an answer is a prefill and then as
# many decode steps as it has tokens.
EXPECTED_STEPS = {"decode": 100.0, "prefill": 1.0, "mixed": 1.0}

# What adapters add to the cost of a graph, for the order only: little, but something.
ADAPTERS = 1.1


class Case(NamedTuple):
    """One graph: its key, and for how many active adapters it is made (0: for steps without)."""

    key: GraphKey
    loras: int = 0

    def __str__(self) -> str:
        return f"{self.key} with adapters" if self.loras else str(self.key)


class WarmUpOrder:
    """The cases of a plan that are still to compile, and which of them is next.

    First the covering set, because with it every step has a graph. Then what a cache is known to
    hold, because it costs next to nothing. Then the case that saves most: the steps that missed it
    (or, where none did, the steps to expect of its kind) times what their present stand-in costs
    more.
    """

    def __init__(
        self,
        plan: ShapePlan,
        lora_cases: Sequence[int],
        cost: Callable[[GraphKey], float],
        known: Collection[str] = (),
    ) -> None:
        """``known`` are the texts of cases that a cache holds."""
        # A graph with adapters serves steps without, too.
        self.covering = tuple(Case(key, max(lora_cases)) for key in plan.covering)
        first = set(self.covering)
        rest = (Case(key, loras) for key in plan.keys for loras in lora_cases)
        self.cases = (*self.covering, *(case for case in rest if case not in first))
        self._plan = plan
        self._cost = {
            case: cost(case.key) * (ADAPTERS if case.loras else 1.0) for case in self.cases
        }
        self._known = {case for case in self.cases if str(case) in known}
        # What a launch costs in place of the pending case; None while no graph can stand in.
        self._stand_in: dict[Case, float | None] = dict.fromkeys(self.cases)
        self._bytes: dict[Case, int] = {}

    def __len__(self) -> int:
        return len(self._stand_in)

    def __iter__(self) -> Iterator[Case]:
        """The pending cases."""
        return iter(tuple(self._stand_in))

    def __contains__(self, case: object) -> bool:
        return case in self._stand_in

    @property
    def covered(self) -> bool:
        """Whether the covering set is done."""
        return not any(case in self._stand_in for case in self.covering)

    def choose(
        self, missed: Callable[[Case], int], fits: Callable[[Case], bool] = lambda _: True
    ) -> Case | None:
        """The next case; None if none is left that ``fits``, which the covering set always does.

        ``missed`` says how many steps had to do without the case.
        """
        for case in self.covering:
            if case in self._stand_in:
                return case
        best, most = None, (False, -1.0, -1.0)
        for case, stand_in in self._stand_in.items():
            excess = max(0.0, (stand_in or 0.0) - self._cost[case])
            expected = EXPECTED_STEPS[case.key.kind] * excess
            value = (case in self._known, missed(case) * excess, expected)
            if value > most and fits(case):
                best, most = case, value
        return best

    def bytes_bound(self, case: Case) -> int:
        """The least bytes measured of a graph that contains ``case``; 0 if there is none."""
        return self._bytes.get(case, 0)

    def done(self, case: Case, size: int | None = None) -> None:
        """``case`` has a graph, which keeps ``size`` bytes and can stand in for others."""
        self._stand_in.pop(case, None)
        cost = self._cost[case]
        for other in self._contained(case):
            if size is not None:
                self._bytes[other] = min(size, self._bytes.get(other, size))
            stand_in = self._stand_in[other]
            if stand_in is None or cost < stand_in:
                self._stand_in[other] = cost

    def drop(self, case: Case) -> list[Case]:
        """``case`` does not fit, and neither does what contains it: forget them all."""
        step = self._plan.witness(case.key)
        larger = [
            other
            for other in self._stand_in
            if bool(other.loras) == bool(case.loras) and other.key.covers(step)
        ]
        for other in larger:
            del self._stand_in[other]
        return larger

    def _contained(self, case: Case) -> list[Case]:
        """Pending cases whose steps the graph of ``case`` can take."""
        return [
            other
            for other in self._stand_in
            if bool(other.loras) <= bool(case.loras)
            and case.key.covers(self._plan.witness(other.key))
        ]
