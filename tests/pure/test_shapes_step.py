"""Counting a step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_hpu.shapes import Step, step_of
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.reach import rows_of

ROWS = st.lists(st.tuples(st.integers(1, 300), st.integers(0, 2000)), min_size=1, max_size=256)


@given(ROWS, st.sampled_from([16, 128, 100]), st.integers(1, 5))
def test_against_counting_row_by_row(
    rows: list[tuple[int, int]], block_size: int, query_len: int
) -> None:
    expected = [0] * 6
    cached = False
    for new, old in rows:
        first = 0 if new <= query_len else 3
        cached = cached or (first == 3 and old > 0)
        expected[first] += 1
        expected[first + 1] += new
        expected[first + 2] += len(range(0, new + old, block_size))
    if not cached:
        expected[5] = 0
    scheduled, computed = zip(*rows, strict=True)
    step = step_of(scheduled, computed, block_size, query_len)
    assert step == Step(*expected)
    arrays = [np.array(values, dtype=np.int32) for values in (scheduled, computed)]
    assert step_of(*arrays, block_size, query_len) == step
    assert all(type(number) is int for number in step)
    assert step.tokens == sum(scheduled)
    assert step.rows == len(rows)


def test_a_short_prompt_is_a_decode_row() -> None:
    """Rows are told apart by their tokens, as the runner orders them, not by their history."""
    assert step_of([1], [0], 16, 1) == Step(1, 1, 1, 0, 0, 0)
    assert step_of([2], [0], 16, 1) == Step(0, 0, 0, 1, 2, 0)
    assert step_of([2], [0], 16, 2) == Step(1, 2, 1, 0, 0, 0)


def test_context_counts_the_blocks_of_all_prefill_rows() -> None:
    assert step_of([20, 5], [0, 0], 16, 1).prefill_blocks == 0
    assert step_of([20, 5], [0, 16], 16, 1).prefill_blocks == 2 + 2
    assert step_of([20, 1], [0, 16], 16, 1) == Step(1, 1, 2, 1, 20, 0)


@pytest.mark.parametrize(
    "step",
    [
        Step(2, 1, 2, 0, 0, 0),  # fewer tokens than rows
        Step(2, 2, 9, 0, 0, 0),  # more blocks than two rows of 64 tokens have
        Step(0, 0, 0, 1, 1, 0),  # a prefill row has at least two tokens
        Step(0, 0, 0, 1, 64, 3),  # 64 tokens do not fit in three blocks
    ],
)
def test_rows_of_refuses_what_no_rows_have(step: Step) -> None:
    with pytest.raises(ValueError, match="rows"):
        rows_of(step, Limits(4, 128, 64, 16))
