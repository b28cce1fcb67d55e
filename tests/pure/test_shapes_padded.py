"""Padding-aware plans: sizes by hand, and what the limits of padding promise."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.shapes import Limits, ShapePlan
from vllm_hpu.shapes.strategies import strategy_named
from vllm_hpu.shapes.strategies.linear import Linear
from vllm_hpu.shapes.strategies.padded import Padded

LIMITS = Limits(max_num_seqs=64, max_num_batched_tokens=2048, max_model_len=2048, block_size=128)
PREFIXES = ["PROMPT_QUERY", "PROMPT_CTX", "DECODE_BS", "DECODE_BLOCK"]


def test_defaults_by_hand() -> None:
    grids = Padded().grids(LIMITS)
    # Rows: steps of 2, at most 16 of padding, and every 16. 10 is left out because 12 pads 9 rows
    # by a quarter of itself; 12 stays because 14 would pad them by more.
    assert grids.decode_rows == (1, 2, 4, 6, 8, 12, 16, 22, 30, 32, 44, 48, 64)
    # Tokens: steps of 128, at most 512 of padding, and every 512.
    assert grids.prefill_tokens == (128, 256, 384, 512, 640, 768, 1024, 1280, 1536, 2048)
    # Context: steps of 1, at most 2048 / 128 = 16 blocks of padding.
    assert grids.prefill_blocks[:7] == (1, 2, 4, 6, 9, 13, 15)


def test_context_may_be_padded_by_as_many_blocks_as_a_step_fills() -> None:
    """300 tokens fill 3 blocks of 128, so of 1 to 15 blocks each third stays."""
    of = Limits(4, 300, 2048, 128)
    grids = Padded({"VLLM_PROMPT_CTX_BUCKET_PAD_PERCENT": 50}).grids(of)
    assert grids.prefill_blocks[:6] == (2, 3, 6, 9, 12, 15)


def test_no_padding_is_linear_and_half_doubles() -> None:
    none = {f"VLLM_{prefix}_BUCKET_PAD_PERCENT": 0 for prefix in PREFIXES}
    none["VLLM_DECODE_BS_BUCKET_STEP"] = 32
    assert Padded(none).grids(LIMITS) == Linear().grids(LIMITS)
    half = {f"VLLM_{prefix}_BUCKET_PAD_PERCENT": 50 for prefix in PREFIXES}
    half |= {f"VLLM_{prefix}_BUCKET_PAD_MAX": 10_000 for prefix in PREFIXES}
    assert Padded(half).grids(LIMITS).decode_rows == (1, 4, 10, 22, 46, 64)
    assert Padded(half).grids(LIMITS).prefill_tokens == (128, 256, 512, 1024, 2048)


def test_an_absolute_limit_of_nothing_is_linear() -> None:
    none = {f"VLLM_{prefix}_BUCKET_PAD_MAX": 0 for prefix in PREFIXES}
    none["VLLM_DECODE_BS_BUCKET_STEP"] = 32
    assert Padded(none).grids(LIMITS) == Linear().grids(LIMITS)


def test_multiples_of_the_absolute_limit_stay() -> None:
    grids = Padded(
        {"VLLM_DECODE_BS_BUCKET_PAD_PERCENT": 50, "VLLM_DECODE_BS_BUCKET_PAD_MAX": 24}
    ).grids(LIMITS)
    assert {24, 48} <= set(grids.decode_rows)
    assert grids.decode_rows == (1, 4, 10, 22, 24, 48, 64)


@given(
    st.integers(1, 600),
    st.integers(1, 20),
    st.none() | st.integers(1, 40),
    st.integers(0, 50),
    st.integers(0, 700),
)
def test_sizes_are_linear_ones_and_pad_no_more_than_allowed(
    seqs: int, step: int, least: int | None, percent: int, most: int
) -> None:
    of = Limits(seqs, 1000, 100, 16)
    variables = {
        "VLLM_DECODE_BS_BUCKET_STEP": step,
        "VLLM_DECODE_BS_BUCKET_PAD_PERCENT": percent,
        "VLLM_DECODE_BS_BUCKET_PAD_MAX": most,
    }
    if least is not None:
        variables["VLLM_DECODE_BS_BUCKET_MIN"] = min(least, seqs)
    padded, every = (kind(variables).grids(of).decode_rows for kind in (Padded, Linear))
    assert set(padded) <= set(every)
    assert padded[-1] == seqs
    for low, high in pairwise(padded):
        padding = high - low - 1
        beside = every.index(high) - every.index(low) == 1
        assert beside or (padding <= most and 100 * padding <= percent * high)


@pytest.mark.parametrize(
    ("part", "value"), [("PAD_MAX", -1), ("PAD_PERCENT", -1), ("PAD_PERCENT", 51)]
)
def test_impossible_paddings_are_refused(part: str, value: int) -> None:
    name = f"VLLM_DECODE_BLOCK_BUCKET_{part}"
    with pytest.raises(ConfigurationError, match=f"{name} is {value}.* unset it"):
        ShapePlan(LIMITS, strategy_named("pad", {name: value}))


def test_the_extremes_of_padding_are_allowed() -> None:
    for value in (0, 50):
        ShapePlan(LIMITS, Padded({"VLLM_DECODE_BLOCK_BUCKET_PAD_PERCENT": value}))
    assert strategy_named("pad", {}).name == "padding-aware"
