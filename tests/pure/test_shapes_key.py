"""Which steps a key takes, and which keys it contains."""

from dataclasses import replace
from itertools import product

import pytest

from vllm_hpu.shapes import GraphKey, Limits, Step
from vllm_hpu.shapes.cost import exact
from vllm_hpu.shapes.key import decode_key, prefill_key

MIXED = GraphKey(40, 4, 9, True, 7)


def test_a_key_covers_steps_up_to_its_sizes() -> None:
    full = Step(4, 4, 9, 1, 36, 7)
    assert MIXED.covers(full)
    for change in (
        {"prefill_tokens": 37},
        {"decode_rows": 5},
        {"decode_blocks": 10},
        {"prefill_blocks": 8},
        {"prefill_rows": 0},
        {"prefill_blocks": 0},
    ):
        assert not MIXED.covers(full._replace(**change))
    smaller = full._replace(prefill_blocks=1, decode_blocks=1, decode_rows=1, prefill_tokens=2)
    assert MIXED.covers(smaller)


@pytest.mark.parametrize("blocks", [0, 1])
def test_cached_context_is_told_apart_from_the_first_block_on(blocks: int) -> None:
    key = GraphKey(8, 0, 0, True, blocks)
    for cached in (0, 1):
        assert key.covers(Step(0, 0, 0, 1, 8, cached)) == (cached == blocks)
        assert key.contains(GraphKey(8, 0, 0, True, cached)) == (cached == blocks)


def test_a_key_contains_those_whose_steps_it_covers() -> None:
    assert MIXED.contains(MIXED)
    assert MIXED.contains(GraphKey(40, 0, 0, True, 7))
    for change in (
        {"tokens": 41},
        {"decode_rows": 5},
        {"decode_blocks": 10},
        {"prefill_blocks": 8},
        {"prefill_blocks": 0},
        {"has_prefill": False},
    ):
        assert not MIXED.contains(replace(MIXED, **change))
    steps = [
        Step(rows, rows, blocks, 1, tokens, context)
        for rows, blocks, tokens, context in product((0, 4, 5), (0, 9), (2, 36), (0, 1, 7, 8))
    ]
    for step in steps:
        assert MIXED.covers(step) == MIXED.contains(exact(step))


def test_keys_of_sizes() -> None:
    of = Limits(8, 20, 64, 16, query_len=3)
    assert decode_key(of, 4, 9) == GraphKey(12, 4, 9, False, 0)
    # A step of all rows has fewer tokens than all rows with all their drafts.
    assert decode_key(of, 8, 9) == GraphKey(20, 8, 9, False, 0)
    assert prefill_key(of, 16, 0, 3) == GraphKey(16, 0, 0, True, 3)
    assert prefill_key(of, 16, 5, 3) == GraphKey(16, 8, 5, True, 3)
    assert prefill_key(of, 6, 5, 0) == GraphKey(6, 6, 5, True, 0)
