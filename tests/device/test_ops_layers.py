"""Norms and rotary embedding on the device, against float64 formulas written out here."""

import math

import pytest
import torch
from vllm import ir
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.layernorm import GemmaRMSNorm, RMSNorm
from vllm.model_executor.layers.rotary_embedding import get_rope

from vllm_hpu import ops
from vllm_hpu.ops.norm import IR_PRIORITY
from vllm_hpu.ops.rotary import ROTARY_CLASSES, widen

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
EPSILON = 1e-5


@pytest.fixture(autouse=True)
def registered():
    """Our operators behind vLLM's layers, as a worker has them."""
    ops.register()
    with set_current_vllm_config(VllmConfig()):
        for name, priority in IR_PRIORITY.items():
            getattr(ir.ops, name).set_default(priority)
        yield


def exact_rms_norm(x, weight, size=None):
    x = x.double()
    part = x if size is None else x[..., :size]
    scaled = x / (part.square().mean(-1, keepdim=True) + EPSILON).sqrt()
    return scaled if weight is None else scaled * weight.double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("gemma", [False, True])
def test_rms_norm(dtype, with_residual, gemma):
    torch.manual_seed(1)
    hidden = 96
    layer = (GemmaRMSNorm if gemma else RMSNorm)(hidden, EPSILON)
    with torch.no_grad():
        layer.weight.uniform_(-0.5, 1.5)
    layer.to(dtype)
    weight = layer.weight.detach().double() + (1.0 if gemma else 0.0)
    layer.to("hpu")
    x = torch.randn(7, hidden).to(dtype)
    residual = torch.randn(7, hidden).to(dtype) if with_residual else None
    with torch.inference_mode():
        if residual is None:
            got = layer(x.to("hpu"))
            wanted = exact_rms_norm(x, weight)
        else:
            got, total = layer(x.to("hpu"), residual.to("hpu"))
            expected_total = x + residual  # rounded to the dtype, as what the next layer adds to
            assert torch.equal(total.cpu(), expected_total)
            wanted = exact_rms_norm(expected_total, weight)
    assert got.device.type == "hpu"
    assert got.dtype == dtype
    torch.testing.assert_close(
        got.cpu().double(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )


def test_norm_takes_the_cards_kernel_where_it_fits():
    x, weight = torch.randn(2, 8, device="hpu"), torch.randn(8, device="hpu")
    assert ir.ops.rms_norm.dispatch(x, weight, EPSILON).provider == "hpu"
    assert ir.ops.fused_add_rms_norm.dispatch(x, x, weight, EPSILON).provider == "hpu"
    assert ir.ops.rms_norm.dispatch(x, None, EPSILON).provider == "native"
    assert ir.ops.rms_norm.dispatch(x, weight, EPSILON, 4).provider == "native"


@pytest.mark.parametrize(("size", "with_weight"), [(None, False), (24, True)])
def test_norms_that_the_card_lacks_stay_right(size, with_weight):
    torch.manual_seed(2)
    layer = RMSNorm(64, EPSILON, var_hidden_size=size, has_weight=with_weight)
    weight = layer.weight.detach().double() if with_weight else None
    x = torch.randn(5, 64)
    if with_weight:
        layer.to("hpu")
    got = layer(x.to("hpu")).detach().cpu().double()
    torch.testing.assert_close(got, exact_rms_norm(x, weight, size), rtol=2e-6, atol=2e-6)


def exact_rotary(x, positions, cos_sin, head_size, rotary_dim, neox):
    """Rotate pair by pair, one element at a time, in float64."""
    cos, sin = cos_sin.double().chunk(2, dim=-1)
    heads = x.double().view(len(positions), -1, head_size).clone()
    out = heads.clone()
    half = rotary_dim // 2
    for token, position in enumerate(positions.tolist()):
        for pair in range(half):
            a, b = (pair, pair + half) if neox else (2 * pair, 2 * pair + 1)
            c, s = cos[position, pair], sin[position, pair]
            out[token, :, a] = heads[token, :, a] * c - heads[token, :, b] * s
            out[token, :, b] = heads[token, :, b] * c + heads[token, :, a] * s
    return out.view(x.shape)


SCALED = {
    "plain": {"rope_type": "default", "rope_theta": 10000.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "deepseek_yarn": {
        "rope_type": "deepseek_yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
}


@pytest.mark.parametrize("neox", [True, False])
@pytest.mark.parametrize(
    ("kind", "partial", "dtype"),
    [(kind, 1.0, torch.float32) for kind in SCALED]
    + [("plain", 0.5, torch.float32), ("plain", 1.0, torch.bfloat16)],
)
def test_rotary(kind, partial, dtype, neox):
    torch.manual_seed(3)
    head_size, heads, kv_heads = 16, 4, 2
    parameters = dict(SCALED[kind], partial_rotary_factor=partial)
    if kind == "deepseek_yarn":
        kv_heads = 1
    layer = get_rope(head_size, 64, neox, parameters, dtype)
    assert type(layer).__name__.startswith("Hpu")
    table = layer.cos_sin_cache.clone()
    layer.to("hpu")
    positions = torch.tensor([0, 5, 5, 63, 17])
    query = torch.randn(5, heads * head_size).to(dtype)
    key = torch.randn(5, kv_heads * head_size).to(dtype)
    if kind == "deepseek_yarn":  # its callers pass heads as a dimension
        query, key = query.view(5, heads, head_size), key.view(5, kv_heads, head_size)
    got_query, got_key = layer(positions.to("hpu"), query.to("hpu"), key.to("hpu"))
    for got, x in ((got_query, query), (got_key, key)):
        wanted = exact_rotary(x, positions, table, head_size, int(head_size * partial), neox)
        assert got.shape == x.shape
        torch.testing.assert_close(
            got.cpu().double(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
        )


@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize("neox", [True, False])
def test_rotary_that_its_model_turns_to_the_other_style(neox, used_before):
    """As Ernie 4.5 does with Llama's layers, after they are made."""
    torch.manual_seed(4)
    layer = get_rope(16, 32, is_neox_style=not neox, rope_parameters=dict(SCALED["plain"])).to(
        "hpu"
    )
    positions = torch.arange(9, device="hpu")
    query = torch.randn(9, 4 * 16)
    if used_before:
        layer(positions, query.to("hpu"), None)
    try:
        layer.is_neox_style = neox
        got, _ = layer(positions, query.to("hpu"), None)
    finally:
        layer.is_neox_style = not neox  # vLLM shares layers of the same parameters
    wanted = exact_rotary(query, positions.cpu(), layer.cos_sin_cache.cpu(), 16, 16, neox)
    torch.testing.assert_close(got.cpu().double(), wanted, rtol=2e-6, atol=2e-6)


def test_rotary_without_key():
    layer = get_rope(8, 32, True, dict(SCALED["plain"]), torch.float32)
    layer.to("hpu")
    query = torch.randn(3, 16)
    rotated, key = layer(torch.tensor([1, 2, 3]).to("hpu"), query.to("hpu"), None)
    assert key is None
    # A rotation keeps the length of every head.
    lengths = rotated.cpu().view(3, 2, 8).norm(dim=-1)
    torch.testing.assert_close(lengths, query.view(3, 2, 8).norm(dim=-1))
    assert not torch.allclose(rotated.cpu(), query)


def test_widened_table_repeats_each_angle_where_its_element_is():
    angles = torch.tensor([[0.1, 0.2, 0.3]])
    table = torch.cat((angles.cos(), angles.sin()), -1)
    c1, c2, c3 = (math.cos(angle) for angle in (0.1, 0.2, 0.3))
    blockwise, pairwise = widen(table, True)[0, :6], widen(table, False)[0, :6]
    torch.testing.assert_close(blockwise, torch.tensor([c1, c2, c3, c1, c2, c3]))
    torch.testing.assert_close(pairwise, torch.tensor([c1, c1, c2, c2, c3, c3]))


def test_no_variant_with_a_rotation_of_its_own_is_replaced():
    for variant in ROTARY_CLASSES:
        owner = next(c for c in variant.__mro__ if "forward_native" in vars(c))
        assert owner.__name__ in ("RotaryEmbedding", "DeepseekScalingRotaryEmbedding")
