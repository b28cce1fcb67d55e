"""``torch.ops.hpu.rms_norm*`` and ``rotary_pos_embedding`` against float64 formulas."""

import pytest
import torch
from habana_frameworks.torch.hpex.kernels import RotaryPosEmbeddingMode, apply_rotary_pos_emb
from habana_frameworks.torch.hpex.normalization import FusedRMSNorm
from hypothesis import given, settings
from hypothesis import strategies as st

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
DTYPES = st.sampled_from(sorted(TOLERANCE, key=str))


def close(actual, expected, dtype, scale=1.0):
    """Compare in float64; the tolerance is relative to one, or absolute near zero."""
    assert actual.device.type == "hpu"
    assert actual.dtype == dtype
    tolerance = TOLERANCE[dtype] * scale
    torch.testing.assert_close(actual.cpu().double(), expected, rtol=tolerance, atol=tolerance)


@settings(max_examples=40, deadline=None)
@given(
    DTYPES,
    st.lists(st.integers(1, 5), max_size=3),
    st.integers(1, 300),
    st.integers(0, 2**31),
    st.booleans(),
)
def test_rms_norm(dtype, batch, hidden, seed, fast):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*batch, hidden, generator=generator).mul(3).to(dtype)
    gamma = torch.randn(hidden, generator=generator).to(dtype)
    op = torch.ops.hpu.rms_norm_fast if fast else torch.ops.hpu.rms_norm
    device = x.to("hpu")
    y, inverse = op(device, gamma.to("hpu"), 1e-5)
    wide = x.double()
    expected_inverse = 1 / (wide.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    close(y, wide * expected_inverse * gamma.double(), dtype, 4)
    close(inverse, expected_inverse, torch.float32, 10)
    assert torch.equal(device.cpu(), x), "the input changed"


def test_rms_norm_sums_in_float32():
    """In bfloat16 a running sum of 4096 equal squares would stop growing at 256."""
    x = torch.ones(1, 4096, dtype=torch.bfloat16, device="hpu")
    y, _ = torch.ops.hpu.rms_norm(x, torch.ones_like(x[0]), 0.0)
    assert torch.equal(y.cpu(), torch.ones(1, 4096, dtype=torch.bfloat16))


def test_fused_rms_norm_class_runs_the_operator():
    x = torch.randn(3, 64, device="hpu")
    gamma = torch.rand(64, device="hpu")
    y = FusedRMSNorm.apply(x, gamma, 1e-6)
    assert torch.equal(y, torch.ops.hpu.rms_norm(x, gamma, 1e-6)[0])


def test_host_tensors_are_refused():
    with pytest.raises(NotImplementedError, match="hpu::rms_norm"):
        torch.ops.hpu.rms_norm(torch.ones(2, 4), torch.ones(4), 1e-6)


def exact_rotation(x, cos, sin, mode):
    """Rotate pairs of elements in float64; the pairs depend on the mode."""
    x, cos, sin = x.double(), cos.double(), sin.double()
    cos, sin = cos.expand_as(x), sin.expand_as(x)
    out = torch.empty_like(x)
    half = x.shape[-1] // 2
    for i in range(half):
        a, b = (i, i + half) if mode == 0 else (2 * i, 2 * i + 1)
        out[..., a] = x[..., a] * cos[..., a] - x[..., b] * sin[..., a]
        out[..., b] = x[..., b] * cos[..., b] + x[..., a] * sin[..., b]
    return out


def tables(rows, dim, mode, generator, dtype=torch.float32):
    angles = torch.rand(rows, dim // 2, generator=generator) * 6.3
    full = torch.cat((angles, angles), -1) if mode == 0 else angles.repeat_interleave(2, -1)
    return full.cos().to(dtype), full.sin().to(dtype)


@settings(max_examples=40, deadline=None)
@given(
    DTYPES,
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 40),
    st.sampled_from([0, 1]),
    st.integers(0, 2**31),
)
def test_rotary_broadcast_tables(dtype, batch, seq, heads, half, mode, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, seq, heads, 2 * half, generator=generator).to(dtype)
    cos, sin = (t.reshape(1, seq, 1, -1) for t in tables(seq, 2 * half, mode, generator, dtype))
    y = torch.ops.hpu.rotary_pos_embedding(x.to("hpu"), sin.to("hpu"), cos.to("hpu"), None, 0, mode)
    close(y, exact_rotation(x, cos, sin, mode), dtype, 3)


@settings(max_examples=30, deadline=None)
@given(
    DTYPES,
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 20),
    st.sampled_from([torch.int32, torch.int64]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_rotary_gathers_positions(dtype, batch, seq, heads, half, id_dtype, four_axes, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, heads, seq, 2 * half, generator=generator).to(dtype)
    cos, sin = tables(50, 2 * half, 0, generator, dtype)
    ids = torch.randint(0, 50, (batch, seq), generator=generator).to(id_dtype)
    shape = (1, 1, 50, -1) if four_axes else (50, -1)
    y = apply_rotary_pos_emb(
        x.to("hpu"), cos.reshape(shape).to("hpu"), sin.reshape(shape).to("hpu"), ids.to("hpu")
    )
    close(y, exact_rotation(x, cos[ids].unsqueeze(1), sin[ids].unsqueeze(1), 0), dtype, 3)


def test_pairwise_helper_doubles_half_tables():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 8, generator=generator)
    angles = torch.rand(1, 5, 4, generator=generator)
    y = apply_rotary_pos_emb(
        x.to("hpu"),
        angles.cos().to("hpu"),
        angles.sin().to("hpu"),
        mode=RotaryPosEmbeddingMode.PAIRWISE,
    )
    doubled = angles.repeat_interleave(2, -1).unsqueeze(2)
    close(y, exact_rotation(x, doubled.cos(), doubled.sin(), 1), torch.float32, 3)


def test_mixed_dtypes_widen_in_the_helper():
    x = torch.randn(1, 2, 2, 4, dtype=torch.bfloat16, device="hpu")
    table = torch.ones(1, 2, 1, 4, device="hpu")
    assert apply_rotary_pos_emb(x, table, table).dtype == torch.float32


@pytest.mark.parametrize(("dim", "mode"), [(5, 0), (4, 2)])
def test_rotary_refuses_odd_dimensions_and_unknown_modes(dim, mode):
    x = torch.ones(1, dim, device="hpu")
    with pytest.raises(ValueError, match="rotary_pos_embedding"):
        torch.ops.hpu.rotary_pos_embedding(x, x, x, None, 0, mode)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", [0, 1])
def test_rotary_rounds_each_product(dtype, mode):
    """As PyTorch's operators do one after the other: products in the type, then their sum.

    With those the card agrees to 1e-2 in 16.7 million elements (test_hpu_rotary_embedding.py of
    vllm-gaudi); with one rounding of the whole it would not.
    """
    g = torch.Generator().manual_seed(0)
    x, angles = torch.randn(64, 8, 32, generator=g).to(dtype), torch.randn(64, 1, 16, generator=g)
    angles = angles.repeat_interleave(2, -1) if mode else angles.repeat(1, 1, 2)
    sin, cos = angles.sin().to(dtype), angles.cos().to(dtype)
    if mode:
        turned = torch.stack((-x[..., 1::2], x[..., 0::2]), -1).flatten(-2)
    else:
        turned = torch.cat((-x[..., 16:], x[..., :16]), -1)
    expected = x * cos + turned * sin
    once = (x.float() * cos.float() + turned.float() * sin.float()).to(dtype)
    y = torch.ops.hpu.rotary_pos_embedding(x.to("hpu"), sin.to("hpu"), cos.to("hpu"), None, 0, mode)
    assert torch.equal(y.cpu(), expected)
    assert not torch.equal(once, expected)
