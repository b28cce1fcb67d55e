"""What a plan will cost: padded work on given steps, seconds and bytes of warm-up."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from vllm_hpu.shapes.cost import PREDICTED_GRAPH, CostModel, exact
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.plan import ShapePlan
from vllm_hpu.shapes.step import Step
from vllm_hpu.warmup.manifest import GraphRecord
from vllm_hpu.warmup.order import Case, WarmUpOrder

KINDS = ("decode", "prefill", "mixed")


class Demand:
    """The steps of some traffic with their prices, computed once for all plans.

    steps    every step and its share of all steps
    cost     prices them
    flops    operations of each step without padding, in the order of ``steps``
    seconds  predicted time of each step without padding (``CostModel.seconds``)
    """

    def __init__(self, steps: Mapping[Step, float], cost: CostModel) -> None:
        self.steps = steps
        self.cost = cost
        self.flops = [cost.step(step).flops for step in steps]
        self.seconds = [cost.seconds(exact(step)) for step in steps]


@dataclass(frozen=True)
class KindForecast:
    """The graphs of one kind and the steps that run in them.

    graphs          graphs of this kind
    steps           share of all steps that run in them, 0 to 1
    flops           operations of these steps without padding, per step of the traffic
    padded_flops    operations of their graphs, the same way
    seconds         predicted time of graphs without padding, the same way (``CostModel.seconds``)
    padded_seconds  predicted time of their graphs
    """

    kind: str
    graphs: int
    steps: float
    flops: float
    padded_flops: float
    seconds: float
    padded_seconds: float

    @property
    def padding(self) -> float:
        """Share of the graphs' operations that is padding, 0 to 1."""
        return _part(self.flops, self.padded_flops)

    @property
    def time_padding(self) -> float:
        """Share of the graphs' predicted time that padding takes, 0 to 1."""
        return _part(self.seconds, self.padded_seconds)


@dataclass(frozen=True)
class WarmUpForecast:
    """Seconds to compile graphs one after another, and bytes of device memory they keep.

    measured  how many of the graphs an earlier start has measured
    """

    graphs: int
    seconds: float
    bytes: int
    measured: int


@dataclass(frozen=True)
class Forecast:
    """A plan, and what it costs under some traffic.

    warm_up     of all graphs
    first       of the graphs the server waits for before it answers
    """

    plan: ShapePlan
    kinds: tuple[KindForecast, ...]
    warm_up: WarmUpForecast
    first: WarmUpForecast

    @property
    def padding(self) -> float:
        """Share of all operations that is padding, 0 to 1."""
        return _padding(self.kinds)

    @property
    def time_padding(self) -> float:
        """Share of the predicted time that padding takes, 0 to 1."""
        return _part(
            sum(kind.seconds for kind in self.kinds),
            sum(kind.padded_seconds for kind in self.kinds),
        )


@dataclass(frozen=True)
class GraphPrices:
    """What graphs take: measured where an earlier start has left a manifest, else predicted.

    records  by the text of a key, as the manifest has them
    """

    records: Mapping[str, GraphRecord]
    source: str = PREDICTED_GRAPH.source

    def of(self, keys: tuple[GraphKey, ...]) -> WarmUpForecast:
        """Keys without a record cost the mean of those that have one, or the prediction."""
        known = [self.records[str(key)] for key in keys if str(key) in self.records]
        everything = list(self.records.values())
        seconds, size = PREDICTED_GRAPH.seconds, float(PREDICTED_GRAPH.bytes)
        if everything:
            seconds = sum(record.seconds for record in everything) / len(everything)
            size = sum(record.bytes for record in everything) / len(everything)
        rest = len(keys) - len(known)
        return WarmUpForecast(
            len(keys),
            sum(record.seconds for record in known) + rest * seconds,
            round(sum(record.bytes for record in known) + rest * size),
            len(known),
        )


def forecast(plan: ShapePlan, demand: Demand, prices: GraphPrices) -> Forecast:
    """``plan`` under ``demand``, each step in its own graph."""
    kinds = _kinds(plan, demand)
    return Forecast(plan, kinds, prices.of(plan.keys), prices.of(plan.covering))


def padding_by_graphs(
    plan: ShapePlan, demand: Demand, numbers: Collection[int]
) -> list[tuple[int, float]]:
    """(graphs, share of padding) while warm-up goes on, at those of ``numbers`` that it passes.

    The order is that of the warm-up service under these steps; a step whose graph is not there yet
    runs in the cheapest that is and covers it.
    """
    order = WarmUpOrder(plan, [0], plan.cost)
    wanted: dict[GraphKey, int] = {}
    for step, share in demand.steps.items():
        key = plan.dispatch(step)
        # Scaled, because the order asks for whole numbers of steps.
        wanted[key] = wanted.get(key, 0) + round(1e6 * share)
    launched = _Launched(demand, plan.cost)
    points: list[tuple[int, float]] = []
    for number in range(1, max(numbers, default=0) + 1):
        case = order.choose(lambda case: wanted.get(case.key, 0))
        if case is None:
            break
        launched.add(case.key)
        order.done(Case(case.key))
        if number in numbers and number >= len(plan.covering):
            points.append((number, launched.padding))
    return points


class _Launched:
    """Which of the graphs so far every step runs in, for all steps at once."""

    def __init__(self, demand: Demand, price: Callable[[GraphKey], float]) -> None:
        self._price, self._cost = price, demand.cost
        columns = np.array([(*step, step.tokens) for step in demand.steps])
        self._step = Step(*columns.T[:-1])
        self._tokens = columns[:, -1]
        self._shares = np.array(list(demand.steps.values()))
        self._needed = float(self._shares @ np.array(demand.flops))
        self._prices = np.full(len(columns), np.inf)
        self._flops = np.zeros(len(columns))

    def add(self, key: GraphKey) -> None:
        """``key`` has a graph; the steps run in it that it covers at a lower price."""
        step, price = self._step, self._price(key)
        # GraphKey.covers, for columns.
        covers = (
            (self._tokens <= key.tokens)
            & (step.decode_rows <= key.decode_rows)
            & (step.decode_blocks <= key.decode_blocks)
            & ((step.prefill_rows > 0) == key.has_prefill)
            & (step.prefill_blocks <= key.prefill_blocks)
            & ((step.prefill_blocks > 0) == (key.prefill_blocks > 0))
        )
        better = covers & (price < self._prices)
        self._prices[better] = price
        self._flops[better] = self._cost.key(key).flops

    @property
    def padding(self) -> float:
        """Share of the operations that is padding, 0 to 1, of the steps that have a graph."""
        return _part(self._needed, float(self._shares @ self._flops))


def _kinds(plan: ShapePlan, demand: Demand) -> tuple[KindForecast, ...]:
    cost = demand.cost
    graphs, sums = dict.fromkeys(KINDS, 0), {kind: [0.0] * 5 for kind in KINDS}
    padded: dict[GraphKey, tuple[float, float]] = {}
    for key in plan.keys:
        graphs[key.kind] += 1
    for (step, share), flops, seconds in zip(
        demand.steps.items(), demand.flops, demand.seconds, strict=True
    ):
        key = plan.dispatch(step)
        if key not in padded:
            padded[key] = cost.key(key).flops, cost.seconds(key)
        padded_flops, padded_seconds = padded[key]
        for place, amount in enumerate((1.0, flops, padded_flops, seconds, padded_seconds)):
            sums[key.kind][place] += share * amount
    return tuple(
        KindForecast(kind, graphs[kind], *sums[kind])
        for kind in KINDS
        if graphs[kind] or sums[kind][0]
    )


def _padding(kinds: tuple[KindForecast, ...]) -> float:
    return _part(sum(kind.flops for kind in kinds), sum(kind.padded_flops for kind in kinds))


def _part(needed: float, padded: float) -> float:
    return 1 - needed / padded if padded else 0.0
