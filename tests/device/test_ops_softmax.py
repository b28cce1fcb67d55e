"""``block_softmax``, ``block_softmax_adjustment`` and ``custom_softmax`` against plain softmax."""

import math

import pytest
import torch
from habana_frameworks.torch.hpex.kernels import CustomSoftmax
from hypothesis import given, settings
from hypothesis import strategies as st

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(TOLERANCE, key=str)),
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 9),
    st.integers(0, 2**31),
)
def test_block_softmax(dtype, blocks, kv_heads, group, tokens, block_size, seed):
    g = torch.Generator().manual_seed(seed)
    attn = torch.randn(blocks, kv_heads, group, tokens, block_size, generator=g).mul(4).to(dtype)
    bias = torch.randn(blocks, block_size, generator=g).to(dtype)
    owners = torch.randint(-1, 3, (blocks,), generator=g)
    weights, maxima, sums = torch.ops.hpu.block_softmax(
        attn.to("hpu"), bias.to("hpu"), owners.to("hpu")
    )
    scores = attn.double() + bias.double().reshape(blocks, 1, 1, 1, block_size)
    top = scores.amax(-1, keepdim=True)
    owned = (owners != -1).double().reshape(-1, 1, 1, 1, 1)
    expected = (scores - top).exp() * owned
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(weights.cpu().double(), expected, **tolerance)
    count = kv_heads * group * tokens
    assert weights.dtype == maxima.dtype == sums.dtype == dtype
    for flat, value in ((maxima, top * owned), (sums, expected.sum(-1, keepdim=True))):
        assert flat.shape[1] * dtype.itemsize % 256 == 0
        torch.testing.assert_close(
            flat.cpu().double()[:, :count], value.reshape(blocks, count), **tolerance
        )
        assert flat[:, count:].count_nonzero().item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_block_by_block_equals_softmax_over_the_sequence(dtype):
    """Both operators together are a softmax over all blocks of a sequence, padding left out."""
    g = torch.Generator().manual_seed(9)
    lengths, size, heads, dim = [3, 1, 2], 4, 3, 8
    owners = torch.tensor([1, 0, 2, 0, -1, 2, 0])
    attn = torch.randn(len(owners), heads, 1, 1, size, generator=g).mul(3).to(dtype)
    value = torch.randn(len(owners), heads, 1, size, dim, generator=g).to(dtype)
    bias = torch.zeros(len(owners), size, dtype=dtype)
    bias[3, 2:] = float("-inf")
    weights, maxima, sums = torch.ops.hpu.block_softmax(
        attn.to("hpu"), bias.to("hpu"), owners.to("hpu")
    )
    factors = torch.ops.hpu.block_softmax_adjustment(
        maxima, sums, owners.to("hpu"), len(lengths), [len(owners), heads, 1, 1, 1]
    )
    assert factors.dtype == dtype
    assert factors[4].count_nonzero().item() == 0, "a block without an owner has weight"
    partial = (weights.cpu().double() * factors.cpu().double()) @ value.double()
    scores = attn.double() + bias.double().reshape(-1, 1, 1, 1, size)
    for sequence in range(len(lengths)):
        mine = (owners == sequence).nonzero().flatten()
        row = torch.cat([scores[b, :, 0, 0] for b in mine], dim=-1).softmax(-1)
        values = torch.cat([value[b, :, 0].double() for b in mine], dim=1)
        expected = torch.einsum("hs,hsd->hd", row, values)
        actual = partial[mine].sum(0)[:, 0, 0]
        torch.testing.assert_close(
            actual, expected, rtol=TOLERANCE[dtype] * 2, atol=TOLERANCE[dtype] * 2
        )


def test_a_fully_masked_block_is_no_nan():
    attn = torch.zeros(2, 1, 1, 1, 4, device="hpu")
    bias = torch.zeros(2, 4, device="hpu")
    bias[1] = float("-inf")
    owners = torch.zeros(2, dtype=torch.int64, device="hpu")
    weights, maxima, sums = torch.ops.hpu.block_softmax(attn, bias, owners)
    assert weights[1].count_nonzero().item() == 0
    for tensor in (weights, maxima, sums):
        assert tensor.isfinite().all().item()


def test_adjustment_in_five_dimensions_with_a_multiplier():
    g = torch.Generator().manual_seed(1)
    maxima, sums = (torch.rand(5, 2, 1, 1, 1, generator=g) for _ in range(2))
    owners = torch.tensor([0, 1, 1, 0, 0], dtype=torch.int32)
    extra = torch.rand(5, 2, 1, 1, 6, generator=g)
    out = torch.ops.hpu.block_softmax_adjustment(
        maxima.to("hpu"), sums.to("hpu"), owners.to("hpu"), 2, attn_fused_mult=extra.to("hpu")
    )
    expected = torch.empty(5, 2, dtype=torch.float64)
    for block in range(5):
        mine = [b for b in range(5) if owners[b] == owners[block]]
        for head in range(2):
            m = [maxima[b, head].item() for b in mine]
            total = sum(
                sums[b, head].item() * math.exp(x - max(m)) for b, x in zip(mine, m, strict=True)
            )
            expected[block, head] = math.exp(maxima[block, head].item() - max(m)) / total
    torch.testing.assert_close(
        out.cpu().double(), expected.reshape(5, 2, 1, 1, 1) * extra.double(), rtol=1e-5, atol=1e-6
    )


def test_flat_statistics_need_the_result_shape():
    flat = torch.zeros(3, 64, device="hpu")
    with pytest.raises(ValueError, match="out_shape"):
        torch.ops.hpu.block_softmax_adjustment(flat, flat, flat[:, 0].int(), 2)


def test_what_the_steps_need():
    attn = torch.zeros(1, 1, 1, 1, 4, device="hpu")
    owners = torch.zeros(1, dtype=torch.int64, device="hpu")
    with pytest.raises(ValueError, match="fp8_exp needs"):
        torch.ops.hpu.block_softmax(attn, attn[0, 0, 0], owners, fp8_exp=True)
    with pytest.raises(ValueError, match="is_staged needs"):
        torch.ops.hpu.block_softmax_adjustment(attn, attn, owners, 1, is_staged=True)


@pytest.mark.parametrize("dtype", sorted(TOLERANCE, key=str))
def test_custom_softmax(dtype):
    x = torch.randn(3, 5, 17).to(dtype)
    y = CustomSoftmax.apply(x.to("hpu"), 0)
    assert y.dtype == dtype
    torch.testing.assert_close(
        y.cpu().double(), x.double().softmax(-1), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )
