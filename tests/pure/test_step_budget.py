"""Whatever rows a scheduler offers, those that are admitted make a step of the plan."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vllm_hpu.engine_plan import engine_limits
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.plan import ShapePlan
from vllm_hpu.shapes.step import step_of
from vllm_hpu.shapes.step_budget import StepBounds, StepBudget
from vllm_hpu.shapes.strategies import strategy_named


@st.composite
def engines(draw: st.DrawFn) -> Limits:
    rows = draw(st.integers(1, 8))
    length = draw(st.integers(1, 300))
    return engine_limits(
        rows,
        draw(st.integers(max(rows, 16), 128)),
        length,
        16,
        draw(st.integers(1, 3)),
        # At least one request of full length, and the null block.
        -(-length // 16) + draw(st.integers(1, 20)),
    )


@given(engines(), st.data())
def test_admitted_rows_are_a_step_of_the_plan(limits: Limits, data: st.DataObject) -> None:
    plan = ShapePlan(limits, strategy_named("exp", {}))
    budget = StepBudget(StepBounds.of(limits))
    tokens = limits.max_num_batched_tokens
    scheduled, computed = [], []
    for _ in range(data.draw(st.integers(1, limits.max_num_seqs), "rows")):
        total = data.draw(st.integers(1, limits.max_model_len), "length")
        wanted = data.draw(st.integers(1, total), "new tokens")
        old = total - wanted
        if not tokens or not budget.admits(min(wanted, tokens), old):
            continue
        # The scheduler may cut a row once more, after it was admitted.
        new = data.draw(st.integers(1, min(wanted, tokens)), "cut")
        budget.add(new, old)
        tokens -= new
        scheduled.append(new)
        computed.append(old)
    assert scheduled, "the first row always fits"
    step = step_of(scheduled, computed, limits.block_size, limits.query_len)
    key = plan.dispatch(step)
    assert key in plan
    assert key.covers(step)


def test_a_row_too_many_is_refused() -> None:
    budget = StepBudget(StepBounds(16, 1, decode_blocks=10, prefill_blocks=8))
    budget.add(1, 79)
    assert budget.admits(1, 79)
    assert not budget.admits(1, 80)
    budget = StepBudget(StepBounds(16, 1, decode_blocks=100, prefill_blocks=8))
    budget.add(64, 0)
    assert budget.admits(80, 0), "without context nothing is read from the cache"
    assert not budget.admits(16, 64)
    assert budget.admits(16, 48)
    budget.add(16, 48)
    assert not budget.admits(16, 0)
    assert budget.admits(1, 64)
