"""In which order graphs are compiled, and when a budget ends that."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_hpu.metrics.progress import WarmupProgress
from vllm_hpu.shapes import Limits, ShapePlan
from vllm_hpu.shapes.ready import ReadySet, padded_work
from vllm_hpu.shapes.strategies.exponential import Exponential
from vllm_hpu.warmup.budget import Budget
from vllm_hpu.warmup.order import Case, WarmUpOrder

SERVER = Limits(16, 512, 2048, 128)
PLAN = ShapePlan(SERVER, Exponential())


def nobody_missed(case: Case) -> int:
    return 0


def run(order: WarmUpOrder, missed: Counter[Case] | None = None) -> list[Case]:
    """Everything that is chosen, in order."""
    missed = missed or Counter()
    found = []
    while (case := order.choose(missed.__getitem__)) is not None:
        order.done(case)
        found.append(case)
    return found


@pytest.mark.parametrize("loras", [[0], [0, 4]])
def test_the_covering_set_comes_first_and_everything_comes_once(loras: list[int]) -> None:
    order = WarmUpOrder(PLAN, loras, padded_work)
    covering = order.covering
    assert len(covering) <= 12
    found = run(order)
    assert tuple(found[: len(covering)]) == covering
    assert {case.key for case in covering} == set(PLAN.covering)
    assert sorted(found) == sorted(order.cases)
    assert len(found) == len(PLAN.keys) * len(loras)
    assert len(order) == 0


def test_graphs_with_adapters_cover_steps_without() -> None:
    """These still get graphs of their own, in the order of what they save."""
    order = WarmUpOrder(PLAN, [0, 4], padded_work)
    assert {case.loras for case in order.covering} == {4}
    for case in order.covering:
        order.done(case, 100)
    without = [case for case in order if not case.loras]
    assert {case.key for case in without} == set(PLAN.keys)
    assert {order.bytes_bound(case) for case in without} == {100}
    # A graph without adapters serves no step with some.
    [largest] = [case for case in without if case.key == PLAN.covering[0]]
    order.done(largest, 50)
    assert {order.bytes_bound(case) for case in order if case.loras} == {100}


def test_what_a_cache_holds_comes_next() -> None:
    known = {str(Case(PLAN.keys[index])) for index in (10, 20, 30)}
    order = WarmUpOrder(PLAN, [0], padded_work, known)
    found = run(order)
    rest = found[len(order.covering) :]
    assert {str(case) for case in rest[:3]} == known


def test_what_steps_missed_comes_before_what_they_might() -> None:
    order = WarmUpOrder(PLAN, [0], padded_work)
    wanted = Case(next(key for key in reversed(PLAN.keys) if key.kind == "mixed"))
    found = run(order, Counter({wanted: 1}))
    assert found[len(order.covering)] == wanted
    other = run(WarmUpOrder(PLAN, [0], padded_work))
    assert other[len(order.covering)].key.kind == "decode"


def test_what_steps_missed_counts_what_it_saves() -> None:
    """A step that runs in a graph hardly larger than its own can wait."""
    order = WarmUpOrder(PLAN, [0], padded_work)
    for case in order.covering:
        order.done(case)
    by_cost = sorted(
        (key for key in PLAN.keys if key.kind == "decode" and Case(key) in order), key=padded_work
    )
    cheap, dear = Case(by_cost[0]), Case(by_cost[-1])
    assert order.choose(Counter({cheap: 5, dear: 6}).__getitem__) == cheap


@given(seqs=st.integers(1, 12), seed=st.randoms(use_true_random=False))
def test_every_choice_saves_most(seqs: int, seed: random.Random) -> None:
    """The stand-ins that the order keeps up to date are those that steps get."""
    plan = ShapePlan(Limits(seqs, seqs + 60, 100, 16), Exponential())
    missed = Counter({Case(key): seed.randint(0, 3) for key in plan.keys})
    order = WarmUpOrder(plan, [0], padded_work)
    ready = ReadySet(plan, padded_work)
    while (case := order.choose(missed.__getitem__)) is not None:
        if order.covered:
            savings = {}
            for other in order:
                runs_in = ready.dispatch(plan.witness(other.key))
                excess = max(0, padded_work(runs_in) - padded_work(other.key))
                savings[other] = missed[other] * excess
            assert savings[case] == max(savings.values())
        order.done(case)
        ready.add(case.key)


def test_a_graph_that_does_not_fit_takes_the_larger_ones_along() -> None:
    order = WarmUpOrder(PLAN, [0, 2], padded_work)
    for case in order.covering:
        order.done(case)
    keys = [key for key in PLAN.keys if key.kind == "decode" and Case(key) in order]
    middle = keys[len(keys) // 2]
    dropped = order.drop(Case(middle))
    assert Case(middle) in dropped
    assert len(dropped) > 1
    step = PLAN.witness(middle)
    assert all(case.key.covers(step) and case.loras == 0 for case in dropped)
    assert not any(case.key.covers(step) and case.loras == 0 for case in order)
    # With adapters they are other graphs.
    assert Case(middle, 2) in order


def test_only_what_fits_is_chosen() -> None:
    order = WarmUpOrder(PLAN, [0], padded_work)
    for case in order.covering:
        order.done(case)
    assert order.choose(nobody_missed, lambda case: False) is None
    only = Case(PLAN.keys[25])
    assert order.choose(nobody_missed, lambda case: case == only) == only


def test_the_bytes_of_a_graph_bound_those_it_contains() -> None:
    order = WarmUpOrder(PLAN, [0], padded_work)
    largest = order.covering[0]
    assert largest.key.kind == "decode"
    inner = Case(next(key for key in reversed(PLAN.keys) if key.kind == "decode"))
    prefill = Case(next(key for key in reversed(PLAN.keys) if key.kind == "prefill"))
    assert order.bytes_bound(inner) == 0
    order.done(largest, 1000)
    assert order.bytes_bound(inner) == 1000
    assert order.bytes_bound(prefill) == 0
    between = next(case for case in order if case.key.kind == "decode" and case != inner)
    order.done(between, 2000)
    assert order.bytes_bound(inner) == 1000


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (Budget(None, None), ""),
        (Budget(11, None), ""),
        (Budget(10, None), "--hpu-warmup-seconds 10"),
        (Budget(None, 110), ""),
        (Budget(None, 109), "--hpu-warmup-bytes 109"),
    ],
)
def test_budgets(budget: Budget, says: str) -> None:
    refusal = budget.refusal(spent_seconds=10, kept_bytes=100, seconds=1, size=10, room_bytes=1000)
    assert says in refusal
    assert bool(refusal) == bool(says)


def test_what_the_largest_step_needs_stays_free() -> None:
    assert "largest step" in Budget(None, None).refusal(0, 0, 0, size=101, room_bytes=100)
    assert Budget(None, None).refusal(0, 0, 0, size=100, room_bytes=100) == ""


def test_progress_adds_up() -> None:
    progress = WarmupProgress(planned=10, compiled=3, cached=2, dropped=1)
    assert progress.ready == 5
    assert progress.pending == 4
