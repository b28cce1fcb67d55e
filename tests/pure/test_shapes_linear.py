"""Linear plans honour the bucket variables, and refuse those that cannot be honoured."""

import pytest

from vllm_hpu.shapes import Limits, ShapePlan
from vllm_hpu.shapes.strategies import strategy_named
from vllm_hpu.shapes.strategies.linear import Linear

LIMITS = Limits(max_num_seqs=64, max_num_batched_tokens=2048, max_model_len=2048, block_size=128)


def test_defaults() -> None:
    grids = Linear().grids(LIMITS)
    assert grids.decode_rows == (1, 2, 4, 8, 16, 32, 64)
    assert grids.decode_blocks == (1, 2, 4, 8, 16, 32, 64, *range(128, 1025, 128))
    assert grids.prefill_tokens == tuple(range(128, 2049, 128))
    assert grids.prefill_blocks == (*range(1, 16), 30, 60, 120, 240, 480, 1024)


def test_the_default_minima_may_be_written_out() -> None:
    minima = {"PROMPT_QUERY": 128, "PROMPT_CTX": 0, "DECODE_BS": 1, "DECODE_BLOCK": 1}
    variables = {f"VLLM_{name}_BUCKET_MIN": least for name, least in minima.items()}
    assert Linear(variables).grids(LIMITS) == Linear().grids(LIMITS)
    # So may the largest minimum, which leaves one size.
    assert Linear({"VLLM_DECODE_BS_BUCKET_MIN": 64}).grids(LIMITS).decode_rows == (64,)


def test_variables_set_the_sizes() -> None:
    grids = Linear(
        {
            "VLLM_DECODE_BS_BUCKET_MIN": 3,
            "VLLM_DECODE_BS_BUCKET_STEP": 20,
            "VLLM_PROMPT_QUERY_BUCKET_MIN": 256,
            "VLLM_PROMPT_QUERY_BUCKET_STEP": 512,
            "VLLM_PROMPT_QUERY_BUCKET_MAX": 4096,
            "VLLM_DECODE_BLOCK_BUCKET_MIN": 256,
            "VLLM_DECODE_BLOCK_BUCKET_STEP": 256,
            "VLLM_PROMPT_CTX_BUCKET_STEP": 5,
        }
    ).grids(LIMITS)
    assert grids.decode_rows == (3, 6, 12, 20, 40, 60, 64)
    assert grids.prefill_tokens == (256, 512, 1024, 1536, 2048)
    assert grids.decode_blocks == (256, 512, 768, 1024)
    assert grids.prefill_blocks == (5, 10, 15, 30, 60, 120, 240, 480, 1024)


def test_a_large_minimum_leaves_out_smaller_multiples() -> None:
    grids = Linear({"VLLM_DECODE_BS_BUCKET_MIN": 24, "VLLM_DECODE_BS_BUCKET_STEP": 10}).grids(
        LIMITS
    )
    assert grids.decode_rows == (24, 30, 40, 50, 60, 64)


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"BS_BUCKET_MIN": 40, "BS_BUCKET_MAX": 32}, ["BS_BUCKET_MIN=40", "BS_BUCKET_MAX=32"]),
        ({"BS_BUCKET_STEP": 0}, ["BS_BUCKET_STEP is 0"]),
        ({"BS_BUCKET_STEP": -2}, ["BS_BUCKET_STEP is -2"]),
        ({"BS_BUCKET_MIN": -1}, ["BS_BUCKET_MIN is -1"]),
        ({"BS_BUCKET_MAX": 32}, ["BS_BUCKET_MAX=32", "64", "--max-num-seqs"]),
        ({"BS_BUCKET_MIN": 65}, ["BS_BUCKET_MIN=65", "64", "--max-num-seqs"]),
        ({"BLOCK_BUCKET_MAX": 1000}, ["BLOCK_BUCKET_MAX=1000", "1024", "--max-model-len"]),
    ],
)
def test_contradictions_are_refused_by_name(variables: dict[str, int], names: list[str]) -> None:
    decode = {f"VLLM_DECODE_{name}": value for name, value in variables.items()}
    with pytest.raises(ValueError, match="VLLM_DECODE_") as caught:
        ShapePlan(LIMITS, strategy_named("lin", decode))
    for name in names:
        assert name in str(caught.value)


def test_prompt_maxima_below_the_limits_are_refused() -> None:
    for name, value, flag in [
        ("VLLM_PROMPT_QUERY_BUCKET_MAX", 1024, "--max-num-batched-tokens"),
        ("VLLM_PROMPT_CTX_BUCKET_MAX", 14, "--max-model-len"),
    ]:
        with pytest.raises(ValueError, match=f"{name}={value} is below .*{flag}"):
            ShapePlan(LIMITS, Linear({name: value}))
    # The maximum that other software derives from these limits is accepted.
    ShapePlan(LIMITS, Linear({"VLLM_PROMPT_CTX_BUCKET_MAX": 15}))


def test_exponential_plans_ignore_the_variables() -> None:
    plain = ShapePlan(LIMITS, strategy_named("exp", {}))
    assert ShapePlan(LIMITS, strategy_named("exp", {"VLLM_DECODE_BS_BUCKET_MAX": 2})).keys == (
        plain.keys
    )


def test_unknown_strategies_are_refused() -> None:
    with pytest.raises(ValueError, match=r"VLLM_BUCKETING_STRATEGY.*exp, lin"):
        strategy_named("best", {})


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"max_num_seqs": 0}, "--max-num-seqs"),
        ({"block_size": -1}, "--block-size"),
        ({"max_model_len": 2.5}, "--max-model-len"),
        ({"query_len": True}, "--speculative-config"),
        ({"max_decode_blocks": 0}, "KV blocks"),
        ({"max_num_batched_tokens": 63}, "--max-num-batched-tokens"),
    ],
)
def test_limits_are_validated(change: dict[str, int], flag: str) -> None:
    values = {
        "max_num_seqs": 64,
        "max_num_batched_tokens": 2048,
        "max_model_len": 2048,
        "block_size": 128,
    }
    with pytest.raises(ValueError, match=flag):
        Limits(**(values | change))
