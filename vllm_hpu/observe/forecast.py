"""What a plan will cost: padded work on given steps, seconds and bytes of warm-up."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vllm_hpu.execution.manifest import GraphRecord
from vllm_hpu.execution.order import Case, WarmUpOrder
from vllm_hpu.shapes.cost import PREDICTED_GRAPH, CostModel
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.plan import ShapePlan
from vllm_hpu.shapes.ready import ReadySet
from vllm_hpu.shapes.step import Step

KINDS = ("decode", "prefill", "mixed")
Steps = Mapping[Step, float]


@dataclass(frozen=True)
class KindForecast:
    """The graphs of one kind and the steps that run in them.

    graphs       graphs of this kind
    steps        share of all steps, 0 to 1
    flops        operations of these steps without padding, per step of the traffic
    padded_flops operations of their graphs, the same way
    """

    kind: str
    graphs: int
    steps: float
    flops: float
    padded_flops: float

    @property
    def padding(self) -> float:
        """Share of the graphs' operations that is padding, 0 to 1."""
        return 1 - self.flops / self.padded_flops if self.padded_flops else 0.0


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


def forecast(plan: ShapePlan, steps: Steps, cost: CostModel, prices: GraphPrices) -> Forecast:
    """``plan`` under ``steps`` (a step and its share of all steps), each in its own graph."""
    graphs = dict.fromkeys(KINDS, 0)
    for key in plan.keys:
        graphs[key.kind] += 1
    kinds = _kinds(steps, plan.dispatch, cost, graphs)
    return Forecast(plan, kinds, prices.of(plan.keys), prices.of(plan.covering))


def padding_by_graphs(
    plan: ShapePlan, steps: Steps, cost: CostModel, numbers: tuple[int, ...]
) -> list[tuple[int, float]]:
    """(graphs, share of padding) while warm-up goes on, at those of ``numbers`` that it passes.

    The order is that of the warm-up service under these steps; steps whose graph is not there yet
    run in a larger one.
    """
    order = WarmUpOrder(plan, [0], plan.cost)
    ready = ReadySet(plan, plan.cost)
    wanted: dict[GraphKey, float] = {}
    for step, share in steps.items():
        key = plan.dispatch(step)
        wanted[key] = wanted.get(key, 0.0) + share
    points: list[tuple[int, float]] = []
    stops = sorted({number for number in numbers if number >= len(plan.covering)})
    for stop in stops:
        while len(ready) < stop:
            # Scaled, because the order asks for whole numbers of steps.
            case = order.choose(lambda case: round(1e6 * wanted.get(case.key, 0.0)))
            if case is None:
                return points
            ready.add(case.key)
            order.done(Case(case.key))
        points.append((stop, _padding(_kinds(steps, ready.dispatch, cost, {}))))
    return points


def _kinds(
    steps: Steps,
    dispatch: Callable[[Step], GraphKey],
    cost: CostModel,
    graphs: Mapping[str, int],
) -> tuple[KindForecast, ...]:
    shares, flops, padded = ({kind: 0.0 for kind in KINDS} for _ in range(3))
    of_key: dict[GraphKey, float] = {}
    for step, share in steps.items():
        key = dispatch(step)
        if key not in of_key:
            of_key[key] = cost.key(key).flops
        shares[key.kind] += share
        flops[key.kind] += share * cost.step(step).flops
        padded[key.kind] += share * of_key[key]
    return tuple(
        KindForecast(kind, graphs.get(kind, 0), shares[kind], flops[kind], padded[kind])
        for kind in KINDS
        if graphs.get(kind) or shares[kind]
    )


def _padding(kinds: tuple[KindForecast, ...]) -> float:
    padded = sum(kind.padded_flops for kind in kinds)
    return 1 - sum(kind.flops for kind in kinds) / padded if padded else 0.0
