"""FP8 casts, the FP8 product and 4-bit weights against arithmetic written out here."""

import pytest
import torch
from habana_frameworks.torch._ops.fp8_range import fp8_max
from habana_frameworks.torch.utils import experimental
from hypothesis import given, settings
from hypothesis import strategies as st

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
LIMITS = {
    (experimental.synDeviceType.synDeviceGaudi2, E4M3): 240.0,
    (experimental.synDeviceType.synDeviceGaudi3, E4M3): 448.0,
}


def limit(dtype):
    return LIMITS.get((experimental._get_device_type(), dtype), 57344.0)


@pytest.fixture(params=["synDeviceGaudi2", "synDeviceGaudi3"])
def card(request, monkeypatch):
    """Both generations; the operators ask for the card's type."""
    kind = experimental.synDeviceType[request.param]
    monkeypatch.setattr("habana_frameworks.torch._ops.fp8_range._get_device_type", lambda: kind)
    return kind


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_saturation_depends_on_the_card(card, dtype):
    top = LIMITS.get((card, dtype), 57344.0)
    assert fp8_max(dtype) == top
    x = torch.tensor([0.0, 1.0, -1.0, top, -top, top * 1.01, -1e30, 1e30, float("nan")])
    out, amax = torch.ops.hpu.cast_to_fp8_v2(x.to("hpu"), None, False, False, dtype)
    values = out.cpu().float()
    expected = torch.tensor([0.0, 1.0, -1.0, top, -top, top, -top, top])
    assert torch.equal(values[:-1], expected)
    assert values[-1].isnan()
    assert amax.numel() == 0


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from([E4M3, E5M2]),
    st.integers(1, 6),
    st.integers(1, 40),
    st.sampled_from(["none", "one", "rows", "list", "float"]),
    st.integers(0, 2**31),
)
def test_casts_there_and_back(dtype, fp8, rows, columns, kind, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=g).mul(50).to(dtype)
    factor = torch.rand(rows, 1, generator=g) + 0.5 if kind == "rows" else torch.tensor(1.5)
    scale = {
        "none": None,
        "one": factor.to("hpu"),
        "rows": factor.to("hpu"),
        "list": [1.5],
        "float": 1.5,
    }[kind]
    used = torch.tensor(1.0) if kind == "none" else factor
    packet = torch.ops.hpu.cast_to_fp8_v2
    to = {"list": packet.scalar_list, "float": packet.scalar}.get(kind, packet.default)
    out, amax = to(x.to("hpu"), scale, False, True, fp8)
    # The card multiplies in the input's type, and the bridge's own suite checks that exactly.
    expected = (x * used.to(dtype)).clamp(-limit(fp8), limit(fp8)).to(fp8)
    assert out.dtype == fp8
    assert torch.equal(out.cpu().float(), expected.float())
    assert amax.item() == x.abs().max().item()
    packet = torch.ops.hpu.cast_from_fp8
    back_with = {"list": packet.scalar_list, "float": packet.scalar}.get(kind, packet.default)
    back = back_with(out, scale, torch.bfloat16)
    assert torch.equal(back.cpu(), expected.to(torch.bfloat16) * used.to(torch.bfloat16))


@pytest.mark.parametrize(("fp8", "below", "above"), [(E4M3, 1.0, 1.125), (E5M2, -5.0, -6.0)])
def test_stochastic_rounding_is_unbiased_between_neighbours(fp8, below, above):
    value = 0.75 * below + 0.25 * above
    x = torch.full((40_000,), value, device="hpu")
    out = torch.ops.hpu.cast_to_fp8_v2(x, None, True, False, fp8)[0].cpu().float()
    assert set(out.tolist()) == {below, above}
    # Standard deviation of the share is 0.0022.
    assert (out == above).float().mean().item() == pytest.approx(0.25, abs=0.012)
    exact = torch.tensor([below, above, 0.0, 2.0**-9 if fp8 == E4M3 else 2.0**-16], device="hpu")
    kept = torch.ops.hpu.cast_to_fp8_v2(exact, None, True, False, fp8)[0]
    assert torch.equal(kept.cpu().float(), exact.cpu())


def test_default_dtype_and_refusals():
    x = torch.ones(2, device="hpu")
    assert torch.ops.hpu.cast_to_fp8_v2(x)[0].dtype == E5M2
    with pytest.raises(RuntimeError, match="no amax for float8"):
        torch.ops.hpu.cast_to_fp8_v2(x.to(E4M3), None, False, True, E4M3)
    with pytest.raises(RuntimeError, match="same dtype for float8"):
        torch.ops.hpu.cast_to_fp8_v2(x.to(E4M3), None, False, False, E5M2)
    with pytest.raises(ValueError, match="FP8 dtype"):
        torch.ops.hpu.cast_to_fp8_v2(x, None, False, False, torch.float16)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 7),
    st.integers(1, 20),
    st.integers(1, 7),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["none", "one", "channels", "column", "float"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_fp8_product(m, k, n, trans_a, trans_b, kind, with_bias, accumulate, seed):
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(k, m, generator=g) if trans_a else torch.randn(m, k, generator=g)
    b = torch.randn(n, k, generator=g) if trans_b else torch.randn(k, n, generator=g)
    a, b = a.to(E4M3), b.to(E4M3)
    row_scale = torch.rand(m, 1, generator=g) + 0.5
    column_scale = torch.rand(n, generator=g) + 0.5
    scale_a, scale_b, use_a, use_b = {
        "none": (None, None, 1.0, 1.0),
        "one": (torch.tensor(0.5).to("hpu"), torch.tensor(2.5).to("hpu"), 0.5, 2.5),
        "channels": (row_scale.to("hpu"), column_scale.to("hpu"), row_scale, column_scale),
        "column": (row_scale.to("hpu"), column_scale[:, None].to("hpu"), row_scale, column_scale),
        "float": (0.5, 2.5, 0.5, 2.5),
    }[kind]
    bias = torch.randn(n, generator=g) if with_bias else None
    extra = torch.randn(m, n, generator=g)
    packet = torch.ops.hpu.fp8_gemm_v2
    op = packet.scalar if kind == "float" else packet.default
    out = op(
        a.to("hpu"),
        trans_a,
        b.to("hpu"),
        trans_b,
        extra.to("hpu") if accumulate else None,
        torch.float32,
        scale_a,
        scale_b,
        None if bias is None else bias.to("hpu"),
        accumulate,
    )
    left = (a.double().T if trans_a else a.double()) * use_a
    right = (b.double().T if trans_b else b.double()) * use_b
    expected = left @ right + (0 if bias is None else bias) + (extra if accumulate else 0)
    torch.testing.assert_close(out.cpu().double(), expected.double(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", ["tensor", "channel", "float", "token"])
def test_a_bfloat16_product_is_rounded_before_and_after_its_scale(kind):
    """The sum, then its product with the rounded product of both scales (docs/rounding.md)."""
    g = torch.Generator().manual_seed(1)
    m, k, n = 16, 256, 24
    a, b = (torch.randn(*shape, generator=g).to(E4M3) for shape in ((m, k), (n, k)))
    row = torch.rand(m, 1, generator=g) * 0.02 if kind == "token" else torch.tensor([0.0111])
    column = torch.tensor([0.0019]) if kind == "tensor" else torch.rand(n, generator=g) * 0.01
    if kind == "float":
        row, column = 0.0111, 0.0019
        scales, op = (row, column), torch.ops.hpu.fp8_gemm_v2.scalar
    else:
        scales, op = (row.to("hpu"), column.to("hpu")), torch.ops.hpu.fp8_gemm_v2.default
    out = op(a.to("hpu"), False, b.to("hpu"), True, None, torch.bfloat16, *scales).cpu()
    # Exact in float64: products of 8 bits whose exponents are less than 40 apart.
    total = (a.double() @ b.double().T).float()
    scale = torch.as_tensor(row * column, dtype=torch.float32).bfloat16()
    assert torch.equal(out, total.bfloat16() * scale)
    assert not torch.equal(out, (total * row * column).bfloat16())


def test_accumulate_needs_a_tensor_to_add_to():
    a = torch.ones(2, 2, device="hpu").to(E4M3)
    with pytest.raises(ValueError, match="needs the tensor D"):
        torch.ops.hpu.fp8_gemm_v2(a, False, a, False, None, torch.float32, accumulate=True)


def pack(nibbles):
    """Eight nibbles per int32, the lowest first."""
    words = torch.zeros(*nibbles.shape[:-1], nibbles.shape[-1] // 8, dtype=torch.int64)
    for i in range(8):
        words |= nibbles[..., i::8].long() << (4 * i)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(["packed", "plain", "none"]),
    st.integers(0, 2**31),
)
def test_convert_from_uint4(groups, group_rows, words, shuffled, zeros_kind, seed):
    g = torch.Generator().manual_seed(seed)
    rows, columns = groups * group_rows, words * 8
    nibbles = torch.randint(0, 16, (rows, columns), generator=g)
    zeros = torch.randint(0, 16, (groups, columns), generator=g)
    scale = torch.rand(groups, columns, generator=g) + 0.1
    owner = torch.arange(rows) // group_rows
    if shuffled:
        owner = owner[torch.randperm(rows, generator=g)]
    zero_point = {"packed": pack(zeros), "plain": zeros.float(), "none": None}[zeros_kind]
    out = torch.ops.hpu.convert_from_uint4(
        pack(nibbles).to("hpu"),
        scale.to("hpu"),
        None if zero_point is None else zero_point.to("hpu"),
        torch.float32,
        owner.to(torch.int32).to("hpu") if shuffled else None,
    )
    expected = torch.empty(rows, columns)
    for r in range(rows):
        zero = 0 if zeros_kind == "none" else zeros[owner[r]]
        expected[r] = (nibbles[r] - zero) * scale[owner[r]]
    torch.testing.assert_close(out.cpu(), expected)


def test_uint4_to_fp8_saturates_unless_told_otherwise():
    words = pack(torch.full((1, 8), 15)).to("hpu")
    scale = torch.tensor([100.0], device="hpu")
    clipped = torch.ops.hpu.convert_from_uint4(words, scale, None, E4M3)
    assert clipped.cpu().float().max().item() == limit(E4M3)


def test_uint4_refuses_what_does_not_fit():
    words = torch.zeros(6, 1, dtype=torch.int32, device="hpu")
    with pytest.raises(ValueError, match="6 weight rows cannot be split into 4"):
        torch.ops.hpu.convert_from_uint4(words, torch.ones(4, 8, device="hpu"), None, torch.float32)
    with pytest.raises(ValueError, match="int32"):
        torch.ops.hpu.convert_from_uint4(
            words.long(), torch.ones(1, device="hpu"), None, torch.float32
        )
