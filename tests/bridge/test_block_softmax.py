"""The steps and variants of block softmax against a softmax over each whole sequence, float64."""

import pytest
import torch
from habana_frameworks.torch._ops.fp8_range import fp8_max
from hypothesis import given, settings
from hypothesis import strategies as st

BATCH = 3
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def scores(seed, dtype, blocks=8, heads=2, group=2, tokens=2, size=5):
    g = torch.Generator().manual_seed(seed)
    attn = torch.randn(blocks, heads, group, tokens, size, generator=g).to(dtype)
    bias = torch.randn(blocks, 1, 1, tokens, size, generator=g).to(dtype)
    owners = torch.randint(-1, BATCH, (blocks,), generator=g)
    return attn, bias, owners


def whole(attn, bias, owners):
    """Softmax over all blocks of a sequence; zero for blocks without an owner."""
    values = attn.double() + bias.double()
    out = torch.zeros_like(values)
    for sequence in range(BATCH):
        mine = (owners == sequence).nonzero().flatten().tolist()
        if mine:
            row = torch.cat([values[b] for b in mine], dim=-1).softmax(-1)
            for block, part in zip(mine, row.split(attn.shape[-1], dim=-1), strict=True):
                out[block] = part
    return out


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(list(TOLERANCE)), st.booleans(), st.booleans())
def test_two_steps_are_one_adjustment(seed, dtype, fused, flat):
    attn, bias, owners = scores(seed, dtype)
    on_card = [t.to("hpu") for t in (attn, bias, owners)]
    weights, maxima, sums = torch.ops.hpu.block_softmax(*on_card)
    shape = list(attn.shape[:-1])
    if not flat:
        maxima, sums = (t[:, : 2 * 2 * 2].reshape(*shape, 1) for t in (maxima, sums))
    first, total = torch.ops.hpu.block_softmax_staged_sum_max(maxima, sums, on_card[2], BATCH)
    assert total.shape == (BATCH, first.shape[1])
    extra = {"attn_fused_mult": weights} if fused else {}
    target = list(attn.shape) if fused else [*shape, 1]
    out = torch.ops.hpu.block_softmax_adjustment(
        first, total, on_card[2], BATCH, target, is_staged=True, **extra
    )
    out = out if fused else out * weights
    assert out.dtype == dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(
        out.cpu().double(), whole(attn, bias, owners), atol=tolerance, rtol=tolerance
    )


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from([0.0, 1.5, 10.0]),
    st.booleans(),
)
def test_constant_maximum(seed, dtype, highest, staged):
    attn, bias, owners = scores(seed, dtype)
    name = "block_softmax_const_max" if staged else "block_softmax_const_max_not_staged"
    run = getattr(torch.ops.hpu, name)
    on_card = [t.to("hpu") for t in (attn, bias, owners)]
    out = run(*on_card, BATCH, highest)
    assert out.dtype == dtype
    expected, tolerance = whole(attn, bias, owners), TOLERANCE[dtype]
    torch.testing.assert_close(out.cpu().double(), expected, atol=tolerance, rtol=tolerance)
    scale = 3 * fp8_max(torch.float8_e4m3fn)
    out = run(*on_card, BATCH, highest, output_scale=scale, output_dtype=torch.float8_e4m3fn)
    limited = (expected * scale).clamp(max=fp8_max(torch.float8_e4m3fn))
    torch.testing.assert_close(out.cpu().double(), limited, atol=0.1, rtol=2**-4 + tolerance)


def test_exponential_in_fp8():
    attn, bias, owners = scores(1, torch.bfloat16)
    on_card = [t.to("hpu") for t in (attn, bias, owners)]
    plain = torch.ops.hpu.block_softmax(*on_card)
    narrow = torch.ops.hpu.block_softmax(*on_card, output_dtype=torch.float8_e4m3fn, fp8_exp=True)
    assert narrow[0].dtype == torch.float8_e4m3fn
    torch.testing.assert_close(narrow[0].float(), plain[0].float(), atol=2**-9, rtol=2**-4)
    for a, b in zip(narrow[1:], plain[1:], strict=True):
        assert torch.equal(a, b)


def test_wrong_shapes_are_refused():
    flat = torch.zeros(3, 4, device="hpu")
    owners = torch.zeros(3, dtype=torch.int64, device="hpu")
    with pytest.raises(ValueError, match="5 or 2 dimensions"):
        torch.ops.hpu.block_softmax_staged_sum_max(flat[0], flat[0], owners, 1)
    with pytest.raises(ValueError, match="takes 5 dimensions"):
        torch.ops.hpu.block_softmax_const_max(flat, flat, owners, 1, 0.0)
