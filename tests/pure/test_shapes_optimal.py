"""The optimal strategy: how good its choice is, its budget, and what it is judged by."""

import math
import time
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_hpu.shapes import GraphKey, Limits, ShapePlan, Step
from vllm_hpu.shapes.budget import PlanBudget
from vllm_hpu.shapes.cost import CostModel, GraphPrice, exact, padded_work
from vllm_hpu.shapes.cover import Cover
from vllm_hpu.shapes.demand import APART, OTHERS, demand_of, expected_cost, padded_share
from vllm_hpu.shapes.kinds import kind_of, sizes_of
from vllm_hpu.shapes.model import ModelShape
from vllm_hpu.shapes.select import Pool, select
from vllm_hpu.shapes.strategies import strategy_named
from vllm_hpu.shapes.strategies.exponential import Exponential
from vllm_hpu.shapes.strategies.optimal import Optimal
from vllm_hpu.shapes.traffic import Length, Load, Traffic

LLAMA_8B = ModelShape(
    layers=32, hidden=4096, heads=32, kv_heads=8, head_size=128, intermediate=14336, vocab=128256
)
PRICE = CostModel(LLAMA_8B, 128).price
SERVER = Limits(16, 512, 1024, 128)
TRAFFIC = Traffic((Length(200, 60, 3), Length(700, 20, 1, 300)), (Load(2, 1), Load(9, 2)))


@st.composite
def pools(draw: st.DrawFn, keys: int = 12) -> Pool:
    """A grid of one to three sizes whose keys cost more the larger they are."""
    shape = draw(st.sampled_from([(keys,), (4, keys // 4), (2, 2, keys // 4)]))
    costs = np.zeros(shape)
    for axis, size in enumerate(shape):
        rises = draw(st.lists(st.integers(1, 30), min_size=size, max_size=size))
        costs = costs + np.cumsum(rises).reshape(
            [-1 if other == axis else 1 for other in range(len(shape))]
        )
    places = draw(
        st.lists(st.tuples(*(st.integers(0, size - 1) for size in shape)), max_size=8, unique=True)
    )
    weights = [draw(st.integers(1, 50)) for _ in places]
    return Pool(
        costs.astype(np.float64),
        np.array(places, np.int64).reshape(-1, len(shape)),
        np.array(weights, np.float64),
    )


def cost_with(pool: Pool, chosen: list[tuple[int, ...]]) -> float:
    """What the steps of ``pool`` cost in the cheapest of ``chosen``, worked out one by one."""
    total = 0.0
    for place, weight in zip(pool._places, pool._weights, strict=True):
        fitting = [key for key in chosen if all(a <= b for a, b in zip(place, key, strict=True))]
        total += weight * min(pool._costs[key] for key in fitting)
    return total


def chosen_of(pool: Pool) -> list[tuple[int, ...]]:
    return [tuple(map(int, place)) for place in pool.chosen]


@given(pools())
def test_a_pool_knows_what_its_keys_cost_and_which_is_next(pool: Pool) -> None:
    every = list(product(*map(range, pool._costs.shape)))
    assert chosen_of(pool) == [every[-1]]
    for _ in range(3):
        now = cost_with(pool, chosen_of(pool))
        assert math.isclose(pool.cost, now, abs_tol=1e-9)
        gain, key = pool.best()
        most = max(now - cost_with(pool, [*chosen_of(pool), other]) for other in every)
        assert math.isclose(gain, most, abs_tol=1e-9)
        pool.add(key)
        assert math.isclose(pool.cost, now - gain, abs_tol=1e-9)
        pool.move()
        assert pool.cost <= now - gain + 1e-9
        assert chosen_of(pool)[0] == every[-1]
        assert math.isclose(pool.cost, cost_with(pool, chosen_of(pool)), abs_tol=1e-9)


@given(pools(), st.integers(1, 4))
def test_the_choice_is_near_the_best_there_is(pool: Pool, more: int) -> None:
    """At least 1 - 1/e of the most that any keys could save."""
    every = list(product(*map(range, pool._costs.shape)))
    alone = pool.cost
    least = min(cost_with(pool, [*keys, every[-1]]) for keys in combinations(every, more))
    select([pool], 1 + more, 0.0)
    assert len(pool.chosen) <= 1 + more
    assert alone - pool.cost >= (1 - 1 / math.e) * (alone - least) - 1e-9


@given(st.data(), st.integers(0, 40))
def test_moving_never_loses_and_follows_its_round(data: st.DataObject, most: int) -> None:
    """With 24 keys or more some were moved; a budget more never costs more."""
    case = [data.draw(pools(48)) for _ in range(2)]

    def cost(budget: int) -> float:
        fresh = [Pool(pool._costs, pool._places, pool._weights) for pool in case]
        select(fresh, budget, 0.0)
        assert sum(len(pool.chosen) for pool in fresh) <= max(budget, len(fresh))
        return sum(pool.cost for pool in fresh)

    assert cost(most + 1) <= cost(most) + 1e-9


def test_moving_finds_better_neighbours() -> None:
    """Greedy takes the middle first, which the best two keys do not contain."""
    costs = np.arange(1.0, 10.0)
    places = np.arange(9).reshape(-1, 1)
    pool = Pool(costs, places, np.ones(9))
    select([pool], 3, 0.0)
    greedy = pool.cost
    pool.move()
    assert pool.cost < greedy
    assert sorted(chosen_of(pool)) == [(2,), (5,), (8,)]


def test_a_key_must_save_its_part() -> None:
    costs = np.array([1.0, 50.0, 100.0])
    places, weights = np.array([[0], [1], [2]]), np.array([10.0, 1.0, 1.0])
    for least, count in [(0.0, 3), (0.3, 2), (0.9, 1)]:
        pool = Pool(costs, places, weights)
        select([pool], None, least)
        assert len(pool.chosen) == count
    pool = Pool(costs, places, weights)
    select([pool], 0, 0.0)
    assert chosen_of(pool) == [(2,)]


KEYS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12, unique=True
)


@given(KEYS, st.integers(1, 10), st.integers(1, 10))
def test_a_cover_finds_the_first_that_is_large_enough(
    sizes: list[tuple[int, int]], rows: int, blocks: int
) -> None:
    entries = [(size, GraphKey(size[0], *size, False, 0)) for size in sizes]
    cover = Cover(entries)
    fitting = [key for size, key in entries if rows <= size[0] and blocks <= size[1]]
    assert cover.find((rows, blocks)) == (fitting[0] if fitting else None)
    for cell in cover.cells():
        assert cover.find(cell.high) == cell.key
        assert cover.find([low + 1 for low in cell.low]) == cell.key
    assert {cell.key for cell in cover.cells()} == {
        found
        for found in (cover.find(place) for place in product(range(10), repeat=2))
        if found is not None
    }


def test_kinds_and_sizes() -> None:
    cases = [
        (Step(3, 4, 5, 0, 0, 0), "decode", (3, 5)),
        (Step(0, 0, 0, 1, 40, 0), "prefill", (40, 0)),
        (Step(3, 3, 5, 1, 40, 0), "prefill", (43, 5)),
        (Step(3, 3, 5, 1, 40, 7), "cached prefill", (43, 5, 7)),
    ]
    for step, kind, sizes in cases:
        assert (kind_of(step), sizes_of(step)) == (kind, sizes)
        assert (kind_of(exact(step)), sizes_of(exact(step))) == (kind, sizes)


@settings(max_examples=20)
@given(st.none() | st.just(TRAFFIC), st.integers(0, 40), st.integers(1, 20))
def test_more_budget_never_costs_more(traffic: Traffic | None, graphs: int, more: int) -> None:
    demand = demand_of(traffic, SERVER, PRICE, 200)
    plans = [
        ShapePlan(SERVER, Optimal(traffic, PlanBudget(budget), samples=200), PRICE)
        for budget in (graphs, graphs + more)
    ]
    less, greater = (expected_cost(plan, demand) for plan in plans)
    assert greater <= less * (1 + 1e-12)
    for plan, budget in zip(plans, (graphs, graphs + more), strict=True):
        assert len(plan.keys) <= max(budget, 3)


@settings(max_examples=20)
@given(
    st.integers(1, 40),
    st.integers(0, 80),
    st.integers(1, 200),
    st.sampled_from([1, 16]),
    st.integers(1, 3),
    st.none() | st.integers(1, 30),
    st.integers(3, 30),
)
def test_more_budget_never_costs_more_within_any_limits(
    seqs: int, more: int, longest: int, size: int, query_len: int, blocks: int | None, graphs: int
) -> None:
    of = Limits(seqs, seqs + more, longest, size, query_len, blocks, blocks)
    demand = demand_of(TRAFFIC, of, padded_work, 60)
    costs = [
        expected_cost(ShapePlan(of, Optimal(TRAFFIC, PlanBudget(budget), samples=60)), demand)
        for budget in (graphs, graphs + 1, graphs + 7)
    ]
    assert costs[2] <= costs[1] * (1 + 1e-12) <= costs[0] * (1 + 1e-11)


def test_a_small_budget_leaves_what_covers_all_steps() -> None:
    plan = ShapePlan(SERVER, Optimal(TRAFFIC, PlanBudget(0), samples=200), PRICE)
    assert plan.keys == plan.covering
    assert set(plan.keys) == {
        GraphKey(16, 16, 128, False, 0),
        GraphKey(512, 16, 128, True, 0),
        GraphKey(512, 16, 128, True, 128),
    }


def test_seconds_and_bytes_buy_graphs() -> None:
    price = GraphPrice(seconds=10.0, bytes=1 << 20, source="by hand")
    counts = [
        len(ShapePlan(SERVER, Optimal(TRAFFIC, budget, price, samples=200), PRICE).keys)
        for budget in (PlanBudget(None, 99), PlanBudget(None, None, 9 << 20), PlanBudget(9))
    ]
    assert counts == [9, 9, 9]


def test_the_default_budget_suffices_for_half_the_padding_of_doubled_sizes() -> None:
    of = Limits(256, 8192, 32768, 128, 1, 4127, 4127)
    plan = ShapePlan(of, Optimal(), PRICE)
    assert len(plan.keys) <= 100
    assert len(plan.covering) == 3
    demand = demand_of(None, of, PRICE)
    doubled = ShapePlan(of, Exponential(), PRICE)
    assert len(doubled.keys) > 100
    assert padded_share(plan, demand) < padded_share(doubled, demand) / 2


def test_planning_is_fast() -> None:
    """Under a second of processor time alone; the bound leaves room for a busy machine."""
    start = time.process_time()
    _ = ShapePlan(Limits(256, 8192, 32768, 128, 1, 4127, 4127), Optimal(), PRICE).keys
    assert time.process_time() - start < 5


def test_a_plan_for_given_traffic_serves_it_better() -> None:
    demand = demand_of(TRAFFIC, SERVER, PRICE)
    own, usual = (
        ShapePlan(SERVER, Optimal(traffic, PlanBudget(20)), PRICE) for traffic in (TRAFFIC, None)
    )
    assert padded_share(own, demand) < padded_share(usual, demand)


def test_demand_is_mostly_the_traffic() -> None:
    cost = PRICE
    demand = demand_of(TRAFFIC, SERVER, cost)
    work = {step: weight * cost(exact(step)) for step, weight in demand.items()}
    assert sum(work.values()) == pytest.approx(1.0)
    # Requests of 200 and 700 tokens, nine at most: no step of the traffic has 10 rows.
    beyond = sum(share for step, share in work.items() if step.rows > 9)
    assert 0.005 < beyond < OTHERS + APART
    # All combinations of sizes are there, and nothing beyond the limits.
    assert Step(16, 16, 128, 0, 0, 0) in demand
    assert Step(1, 1, 128, 1, 511, 128) in demand
    assert Step(0, 0, 0, 1, 128, 0) not in demand
    assert Step(1, 1, 2, 1, 511, 2) not in demand


def test_demand_keeps_to_what_is_planned() -> None:
    few = Limits(16, 512, 1024, 128, max_decode_blocks=6, max_prefill_blocks=5)
    demand = demand_of(None, few, PRICE, 500)
    assert max(step.decode_blocks for step in demand) == 6
    assert max(step.prefill_blocks for step in demand) == 5
    none = Limits(2, 8, 3, 16, query_len=3)
    assert {kind_of(step) for step in demand_of(None, none, PRICE, 500)} == {"decode"}
    alone = demand_of(None, Limits(1, 64, 64, 16), PRICE, 500)
    assert not any(step.decode_rows and step.prefill_rows for step in alone)


def test_costs_and_shares_by_hand() -> None:
    plan = ShapePlan(SERVER, Exponential())
    demand = {Step(3, 3, 5, 0, 0, 0): 2.0, Step(4, 4, 8, 0, 0, 0): 1.0}
    key = GraphKey(4, 4, 8, False, 0)
    assert expected_cost(plan, demand) == 3 * padded_work(key)
    assert expected_cost(plan, demand, lambda key: 7.0) == 21.0
    real = 2 * padded_work(GraphKey(3, 3, 5, False, 0)) + padded_work(key)
    assert padded_share(plan, demand) == pytest.approx(1 - real / (3 * padded_work(key)))


def test_the_name_with_its_files(tmp_path: Path) -> None:
    TRAFFIC.write(tmp_path / "day.json")
    strategy = strategy_named("opt", {}, profile=str(tmp_path / "day.json"), budget="7 graphs")
    assert isinstance(strategy, Optimal)
    assert (strategy.traffic, strategy.most) == (TRAFFIC, 7)
    plain = strategy_named("opt", {})
    assert isinstance(plain, Optimal)
    assert (plain.traffic, plain.most) == (None, 100)


def test_the_same_inputs_give_the_same_plan() -> None:
    """Ranks plan for themselves, and cached recipes are known by their keys."""
    first, second = (ShapePlan(SERVER, Optimal(TRAFFIC), PRICE) for _ in range(2))
    assert first.keys == second.keys
