"""What a launch costs, against figures worked out by hand and published ones."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.shapes import GraphKey, Step
from vllm_hpu.shapes.cost import (
    GAUDI2,
    GAUDI3,
    PREDICTED_GRAPH,
    CostModel,
    Work,
    causal_pairs,
    exact,
    padded_work,
)
from vllm_hpu.shapes.model import ModelShape

# Two layers of 2 heads of 4, one for keys and values; every figure below is counted by hand.
TINY = ModelShape(layers=2, hidden=8, heads=2, kv_heads=1, head_size=4, intermediate=16, vocab=100)
LLAMA_8B = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
}
ATTENTION = 8 * 8 + 2 * 8 * 4 + 8 * 8  # queries, keys and values, output
FEED_FORWARD = 3 * 8 * 16


def test_decode_by_hand() -> None:
    cost = CostModel(TINY, block_size=16)
    work = cost.key(GraphKey(4, 4, 6, False, 0))
    linear = 2 * 2 * (ATTENTION + FEED_FORWARD) * 4
    # Per layer and head: scores and values of 6 blocks of 16 keys, and two products with a one-hot
    # matrix of 6 blocks by 4 rows; 4 wide, two operations each.
    attention = 2 * 2 * (2 * 6 * 16 * 4 * 2 + 2 * 6 * 4 * 4 * 2)
    assert work.flops == linear + attention
    weights = 2 * (ATTENTION + FEED_FORWARD) * 2
    # Residual in and out, queries, keys, values, result; three products inside; written and read.
    activations = 2 * 4 * (2 * 8 + (8 + 4 + 4 + 8) + 3 * 16) * 2 * 2
    kv = 2 * 2 * 6 * 16 * 4 * 2
    # Each block's queries and result in 2 bytes, its scores in 4, written and read.
    between = 2 * 2 * 6 * (4 * 2 + 4 * 2 + 16 * 4) * 2
    assert work.bytes == weights + activations + kv + between


def test_speculation_multiplies_the_queries_of_a_block() -> None:
    one, three = (CostModel(TINY, 16, query_len=n).key(GraphKey(6, 2, 5, False, 0)) for n in (1, 3))
    linear = 2 * 2 * (ATTENTION + FEED_FORWARD) * 6
    assert three.flops - linear == 3 * (one.flops - linear)
    assert one.flops > linear


def test_prefill_by_hand() -> None:
    cost = CostModel(TINY, block_size=16)
    linear = cost.key(GraphKey(10, 0, 0, True, 0)).flops - 2 * 2 * 100 * 4 * 2 * 2
    assert linear == 2 * 2 * (ATTENTION + FEED_FORWARD) * 10
    cached = cost.key(GraphKey(10, 0, 0, True, 3))
    assert cached.flops == linear + 2 * 2 * (10 * 48) * 4 * 2 * 2
    alone = cost.key(GraphKey(10, 0, 0, True, 0))
    kv = 2 * 2 * 4 * 2  # bytes of a token
    assert cached.bytes - alone.bytes == kv * (48 - 10) + 2 * 2 * (10 * 48 - 10 * 10)


def test_mixed_is_the_sum_of_its_attentions() -> None:
    cost = CostModel(TINY, 16)
    mixed = cost.key(GraphKey(10, 4, 6, True, 3))
    prefill, decode = cost.key(GraphKey(10, 0, 0, True, 3)), cost.key(GraphKey(10, 4, 6, False, 0))
    linear = cost.key(GraphKey(10, 4, 0, False, 0))
    assert mixed.flops == prefill.flops + decode.flops - linear.flops
    assert mixed.bytes == prefill.bytes + decode.bytes - linear.bytes


def test_experts() -> None:
    model = replace(TINY, experts=8, experts_per_token=2)
    cost = CostModel(model, 16)
    router = 8 * 8
    flops = cost.key(GraphKey(10, 0, 0, True, 3)).flops - 2 * 2 * (10 * 48) * 4 * 2 * 2
    assert flops == 2 * 2 * (ATTENTION + router + 2 * FEED_FORWARD) * 10
    # One token reads two experts, three tokens six, and more than eight there are not.
    sizes = [cost.key(GraphKey(n, n, 0, False, 0)).bytes for n in (1, 3, 4, 5)]
    per_token = 2 * (2 * 8 + 24 + 3 * 16 * 2) * 2 * 2
    weights = [size - per_token * n for size, n in zip(sizes, (1, 3, 4, 5), strict=True)]
    assert weights == [2 * 2 * (ATTENTION + router + n * FEED_FORWARD) for n in (2, 6, 8, 8)]


def test_logits() -> None:
    assert CostModel(TINY, 16).logits(3) == Work(2 * 3 * 8 * 100, 8 * 100 * 2 + 3 * 100 * 4)


def test_a_known_model_has_its_known_size() -> None:
    """Llama-3.1-8B has 8.03 billion parameters, of which 2 x 525 million in the two vocabularies.

    KV of a token is 128 KiB in bfloat16 (the model card's 8 heads of 128 in 32 layers).
    """
    model = ModelShape.from_config(LLAMA_8B)
    cost = CostModel(model, 128)
    assert cost.useful_flops(1, 0) / 2 == pytest.approx(8.03e9 - 2 * 525.3e6, rel=2e-3)
    one, two = (cost.key(GraphKey(1, 1, n, False, 0)).bytes for n in (1000, 2000))
    scores = 2 * 32 * 32 * 1000 * (2 * 128 * 2 + 4 * 128)
    assert two - one == 1000 * 128 * 128 * 1024 + scores


def test_decode_is_bound_by_memory_and_prefill_by_the_matrix_engines() -> None:
    cost = CostModel(ModelShape.from_config(LLAMA_8B), 128, card=GAUDI2)
    decode, prefill = GraphKey(8, 8, 64, False, 0), GraphKey(4096, 0, 0, True, 0)
    assert cost.seconds(decode) == pytest.approx(cost.key(decode).bytes / 2.46e12)
    assert cost.seconds(prefill) == pytest.approx(cost.key(prefill).flops / 432e12)
    # 14 GB of weights at 2.46 TB/s: no step takes less.
    assert 5.6e-3 < cost.seconds(decode) < 8e-3
    assert CostModel(cost.model, 128, card=GAUDI3).seconds(prefill) < cost.seconds(prefill)


def test_the_default_card_is_the_current_one() -> None:
    assert CostModel(TINY, 16).card is GAUDI3
    assert (GAUDI2.name, GAUDI3.name) == ("Gaudi 2", "Gaudi 3")
    assert (GAUDI3.flops_per_s, GAUDI3.bytes_per_s) == (1835e12, 3.67e12)
    assert "Hot Chips" in GAUDI2.source
    assert "Hot Chips" in GAUDI3.source
    assert "prediction" in PREDICTED_GRAPH.source
    assert 13 <= PREDICTED_GRAPH.seconds <= 40
    assert 20e9 < 300 * PREDICTED_GRAPH.bytes < 30e9


def test_prices_count_operations_and_bytes() -> None:
    cost, key = CostModel(TINY, 16, card=GAUDI2), GraphKey(16, 8, 8, True, 0)
    work = cost.key(key)
    assert cost.operations(key) == work.flops
    assert cost.price(key) == pytest.approx(work.flops / 432e12 + work.bytes / 2.46e12 + 1e-3)
    assert cost.price(key) > cost.seconds(key)


def test_padded_work() -> None:
    assert padded_work(GraphKey(4, 4, 9, False, 0)) == 4 * 200 + 9
    assert padded_work(GraphKey(256, 0, 0, True, 0)) == 256 * (200 + 2)
    assert padded_work(GraphKey(256, 4, 9, True, 7)) == 256 * (200 + 7) + 9


def test_padding_is_the_difference() -> None:
    cost = CostModel(TINY, 16)
    step, key = Step(3, 3, 5, 1, 6, 0), GraphKey(16, 8, 8, True, 0)
    launched, real = cost.key(key), cost.step(step)
    assert exact(step) == GraphKey(9, 3, 5, True, 0)
    assert real == cost.key(GraphKey(9, 3, 5, True, 0))
    assert cost.padding(key, step) == Work(launched.flops - real.flops, launched.bytes - real.bytes)
    assert cost.padding(exact(step), step) == Work(0, 0)
    assert (Work(1, 2) + Work(3, 4)) == Work(4, 6)


@pytest.mark.parametrize("tokens", [1, 255, 256, 257, 511, 512, 2048, 2049, 8192, 10000])
def test_causal_pairs_lie_between_the_triangle_and_the_square(tokens: int) -> None:
    pairs = causal_pairs(tokens)
    assert tokens * (tokens + 1) // 2 <= pairs <= tokens * tokens
    if tokens in (2048, 8192):
        assert pairs == pytest.approx(tokens * tokens * 9 / 16)
    elif tokens <= 256:
        assert pairs == tokens * tokens


def test_causal_pairs_by_hand() -> None:
    assert causal_pairs(300) == 256 * 256 + 44 * 300
    # 2100 / 8 = 262.5, so slices of 263 rounded up to 384: five of them and 180 tokens more.
    assert causal_pairs(2100) == sum(384 * 384 * n for n in range(1, 6)) + 180 * 2100


KEYS = st.builds(
    GraphKey,
    st.integers(1, 9000),
    st.integers(1, 256),
    st.integers(1, 5000),
    st.booleans(),
    st.integers(0, 5000),
)


@given(KEYS, KEYS)
def test_more_of_anything_never_costs_less(one: GraphKey, other: GraphKey) -> None:
    cost = CostModel(ModelShape.from_config(LLAMA_8B), 128)
    larger = GraphKey(
        max(one.tokens, other.tokens),
        max(one.decode_rows, other.decode_rows),
        max(one.decode_blocks, other.decode_blocks),
        one.has_prefill,
        max(one.prefill_blocks, other.prefill_blocks) if one.prefill_blocks else 0,
    )
    low, high = cost.key(one), cost.key(larger)
    # Slices follow multiples of 128, so a longer step may be cut a little better.
    slack = 1.02
    assert low.flops <= high.flops * slack
    assert low.bytes <= high.bytes * slack
    assert cost.seconds(one) <= cost.seconds(larger) * slack


@given(st.integers(1, 500), st.integers(0, 5000), st.integers(1, 500))
def test_useful_work_does_not_depend_on_how_a_prompt_is_cut(
    first: int, cached: int, second: int
) -> None:
    cost = CostModel(TINY, 16)
    whole = cost.useful_flops(first + second, cached)
    parts = cost.useful_flops(first, cached) + cost.useful_flops(second, cached + first)
    assert math.isclose(whole, parts)
    assert whole <= cost.step(Step(0, 0, 0, 1, first + second, 0)).flops * (1 + cached)


def test_from_config() -> None:
    model = ModelShape.from_config(LLAMA_8B)
    assert (model.head_size, model.kv_heads, model.products) == (128, 8, 3)
    assert (model.parameter_bytes, model.activation_bytes, model.kv_bytes) == (2, 2, 2)
    gpt = ModelShape.from_config(
        {"n_embd": 64, "n_head": 4, "n_layer": 3, "vocab_size": 9, "n_inner": None,
         "dtype": "torch.float32", "hidden_act": "gelu"}
    )  # fmt: skip
    assert gpt == ModelShape(
        layers=3, hidden=64, heads=4, kv_heads=4, head_size=16, intermediate=256, vocab=9,
        products=2, parameter_bytes=4, activation_bytes=4, kv_bytes=4,
    )  # fmt: skip
    assert (
        ModelShape.from_config(LLAMA_8B | {"intermediate_size": None, "n_inner": 7}).intermediate
        == 7
    )
    assert (
        ModelShape.from_config(LLAMA_8B | {"intermediate_size": None, "ffn_dim": 9}).intermediate
        == 9
    )
    experts = ModelShape.from_config(
        LLAMA_8B | {"num_experts": 64, "num_experts_per_tok": 8, "moe_intermediate_size": 1024,
                    "head_dim": 64}
    )  # fmt: skip
    assert (experts.experts, experts.experts_per_token, experts.intermediate) == (64, 8, 1024)
    assert experts.head_size == 64
    # A dense model may state the width of experts it does not have.
    assert ModelShape.from_config(LLAMA_8B | {"moe_intermediate_size": 7}).intermediate == 14336


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers"),
        ({"vocab_size": True}, "vocab_size"),
        ({"num_key_value_heads": 0}, "kv_heads"),
        ({"intermediate_size": 1.5}, "intermediate"),
        ({"num_experts": 2, "num_experts_per_tok": 3}, "3 of 2 experts"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(change: dict[str, object], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        ModelShape.from_config(LLAMA_8B | change)


def test_a_rank_computes_its_share() -> None:
    share = ModelShape.from_config(LLAMA_8B).shard(16)
    assert (share.heads, share.kv_heads, share.intermediate, share.vocab) == (2, 1, 896, 8016)
    assert share.hidden == 4096


def test_cards_are_those_that_the_emulator_emulates():
    from gaudi_emulator.config import DEVICE_MEMORY_BYTES
    from gaudi_emulator.roofline import PEAKS

    for name, card in (("GAUDI2", GAUDI2), ("GAUDI3", GAUDI3)):
        assert PEAKS[name].bf16_flops_per_s == card.flops_per_s
        assert PEAKS[name].bytes_per_s == card.bytes_per_s
        assert DEVICE_MEMORY_BYTES[name] == card.memory_bytes
