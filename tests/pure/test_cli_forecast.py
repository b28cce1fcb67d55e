"""What `vllm-hpu plan` foretells, against the run-time parts it stands for."""

import pytest

from vllm_hpu.engine_plan import engine_limits
from vllm_hpu.planner.forecast import Demand, GraphPrices, forecast, padding_by_graphs
from vllm_hpu.settings import Settings
from vllm_hpu.shapes.cost import CostModel, exact
from vllm_hpu.shapes.model import ModelShape
from vllm_hpu.shapes.plan import ShapePlan
from vllm_hpu.shapes.ready import ReadySet
from vllm_hpu.shapes.simulate import steps_of
from vllm_hpu.shapes.traffic import Length, Load, Traffic
from vllm_hpu.text import duration, percent, size, table
from vllm_hpu.warmup.order import Case, WarmUpOrder

MODEL = ModelShape(3, 256, 4, 2, 64, 640, 768)
LIMITS = engine_limits(16, 512, 1024, 128)
TRAFFIC = Traffic(
    (Length(40, 30, 3), Length(300, 60, 2, 128), Length(900, 100, 1)),
    (Load(1, 0.5), Load(6, 0.3), Load(20, 0.2)),
)
STEPS = steps_of(TRAFFIC, LIMITS, 600)
COST = CostModel(MODEL, 128)
DEMAND = Demand(STEPS, COST)


@pytest.fixture(scope="module", params=["exp", "lin", "opt"])
def plan(request: pytest.FixtureRequest) -> ShapePlan:
    settings = Settings.from_env({"VLLM_BUCKETING_STRATEGY": request.param})
    return ShapePlan.from_settings(LIMITS, settings, MODEL)


def test_padding_while_warm_up_goes_on_is_that_of_the_ready_set(plan: ShapePlan) -> None:
    numbers = {3, 4, 5, 8, 13, len(plan.keys)}
    order, ready = WarmUpOrder(plan, [0], plan.cost), ReadySet(plan, plan.cost)
    wanted = dict.fromkeys(plan.keys, 0)
    for step, share in STEPS.items():
        wanted[plan.dispatch(step)] += round(1e6 * share)
    expected = []
    while len(order):
        case = order.choose(lambda case: wanted[case.key])
        assert case is not None
        order.done(Case(case.key))
        ready.add(case.key)
        if len(ready) in numbers and order.covered:
            launched = sum(s * COST.key(ready.dispatch(step)).flops for step, s in STEPS.items())
            needed = sum(s * COST.key(exact(step)).flops for step, s in STEPS.items())
            expected.append((len(ready), pytest.approx(1 - needed / launched)))
    assert expected
    assert padding_by_graphs(plan, DEMAND, numbers) == expected


def test_with_all_graphs_every_step_runs_in_its_own(plan: ShapePlan) -> None:
    found = forecast(plan, DEMAND, GraphPrices({}))
    [(graphs, padding)] = padding_by_graphs(plan, DEMAND, {len(plan.keys)})
    assert graphs == found.warm_up.graphs == sum(kind.graphs for kind in found.kinds)
    assert padding == pytest.approx(found.padding)
    assert sum(kind.steps for kind in found.kinds) == pytest.approx(1)
    assert all(0 <= kind.padding < 1 and 0 <= kind.time_padding < 1 for kind in found.kinds)


def test_a_step_of_exactly_a_graphs_size_is_not_padded(plan: ShapePlan) -> None:
    decode = next(key for key in plan.keys if key.kind == "decode")
    step = plan.witness(decode)._replace(decode_rows=decode.decode_rows)
    step = step._replace(decode_tokens=decode.decode_rows, decode_blocks=decode.decode_blocks)
    found = forecast(plan, Demand({step: 1.0}, COST), GraphPrices({}))
    assert found.padding == found.time_padding == 0


def test_words() -> None:
    assert [percent(share) for share in (0.1234, 0.0004, 0.0, 1.0)] == [
        "12.3 %",
        "0.04 %",
        "0 %",
        "100 %",
    ]
    assert [duration(s) for s in (0.25, 59.4, 75, 5150, 433350)] == [
        "0.2 s",
        "59 s",
        "1 min 15 s",
        "1 h 25 min",
        "5 d 0 h",
    ]
    assert [size(n) for n in (0, 362_300, 83 << 20, 1023 << 20, 1 << 30, 1405 << 30)] == [
        "0 MiB",
        "0.346 MiB",
        "83 MiB",
        "1,023 MiB",
        "1 GiB",
        "1,405 GiB",
    ]
    assert table([("a", "bc"), ("def", "1")], "lr") == "  a    bc\n  def   1"
