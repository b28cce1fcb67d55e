"""Operators that find or apply scales of narrow formats, against float64, value by value."""

import itertools

import pytest
import torch
from habana_frameworks.torch._ops.fp8_range import fp8_max
from hypothesis import given, settings
from hypothesis import strategies as st

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
OPS = torch.ops.hpu


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
    st.sampled_from([0, 1, -1]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_scale_for_a_cast(dtype, maximum, power, axis, keep, seed):
    x = random(6, 4, seed=seed, dtype=dtype).abs() + 0.1
    out = OPS.calculate_scale_for_cast(
        x.to("hpu") if maximum == 0 else -x.to("hpu"), maximum, int(power), axis, keep, 240.0, 0.5
    )
    expected = x.double()
    if maximum == 1:
        expected = expected.max().reshape(1)
    elif maximum == 2:
        expected = expected.amax(axis, keepdim=keep)
    if maximum:
        expected = expected / 120.0
    if power:
        expected = 2.0 ** expected.log2().ceil()
    assert (out.shape, out.dtype) == (expected.shape, dtype)
    torch.testing.assert_close(out.cpu().double(), expected, rtol=2**-8, atol=0)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([E4M3, E5M2]),
    st.sampled_from([(1, 4), (4, 1), (2, 2), (1, 8), (4, 4), (1, 1)]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 2**31),
)
def test_cast_with_a_scale_per_block(dtype, block, scale_dtype, seed):
    height, width = block
    x = random(2, 8, 8, seed=seed)
    x[0, :height, :width] = 0
    values, scales = OPS.cast_to_fp8_just_in_time(
        x.to("hpu"), list(block), out_dtype=dtype, scale_dtype=scale_dtype
    )
    assert (values.dtype, scales.dtype) == (dtype, scale_dtype)
    assert scales.shape == (2, 8 // height, 8 // width)
    half_step = 2**-4 if dtype == E4M3 else 2**-3
    for b, r, c in itertools.product(range(2), range(8 // height), range(8 // width)):
        where = (b, slice(r * height, (r + 1) * height), slice(c * width, (c + 1) * width))
        exact = x[where].double()
        scale = scales[b, r, c].cpu().double()
        if exact.abs().max() > 0:
            expected = exact.abs().max() / fp8_max(dtype)
            torch.testing.assert_close(scale, expected, rtol=2**-8, atol=0)
        back = values[where].cpu().double() * scale
        largest = exact.abs().max()
        assert ((back - exact).abs() <= half_step * exact.abs() + largest * 2**-8).all()


def test_blocks_that_the_card_does_not_take():
    for shape, block in (((8, 8), [2, 4]), ((8, 6), [1, 4]), ((8,), [1, 4])):
        with pytest.raises(RuntimeError, match="just_in_time"):
            OPS.cast_to_fp8_just_in_time(torch.zeros(shape, device="hpu"), block)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_product_of_blocks(seed, transposed):
    """Scales of both operands differ along the summed dimension, as in DeepSeek's checkpoints."""
    m, k, n, block = 3, 16, 8, 4
    a, b = random(m, k, seed=seed).to(E4M3), random(k, n, seed=seed + 1).to(E4M3)
    a_scale = random(m, k // block, seed=seed + 2).abs() + 0.1
    b_scale = random(k // block, n // block, seed=seed + 3).abs() + 0.1
    out = OPS.fp8_gemm_v2(
        a.to("hpu"),
        False,
        (b.T.contiguous() if transposed else b).to("hpu"),
        transposed,
        None,
        torch.float32,
        a_scale.to("hpu"),
        b_scale.to("hpu"),
    )
    expected = torch.zeros(m, n, dtype=torch.float64)
    for row, inner, column in itertools.product(range(m), range(k), range(n)):
        left = a[row, inner].double() * a_scale[row, inner // block]
        right = b[inner, column].double() * b_scale[inner // block, column // block]
        expected[row, column] += left * right
    torch.testing.assert_close(out.cpu().double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_older_forms_write_where_they_are_told(dtype):
    x, scale = random(4, 6), torch.tensor(3.0)
    out = torch.empty(4, 6, dtype=dtype, device="hpu")
    amax = torch.empty((), device="hpu")
    values, largest = OPS.cast_to_fp8(x.to("hpu"), scale.to("hpu"), False, out, amax)
    assert values.data_ptr() == out.data_ptr()
    assert largest.data_ptr() == amax.data_ptr()
    assert torch.equal(out.cpu().float(), (x * 3).to(dtype).float())
    assert amax.item() == x.abs().max().item()
    other = random(6, 5, seed=1).to(dtype)
    result = torch.empty(4, 5, device="hpu")
    OPS.fp8_gemm(
        out, False, other.to("hpu"), False, result, torch.float32, None, None, None, False, result
    )
    expected = out.cpu().double() @ other.double()
    torch.testing.assert_close(result.cpu().double(), expected, rtol=1e-5, atol=1e-5)


def nf4_values() -> list[float]:
    """The format's values by its definition: equally likely quantiles of a normal distribution.

    Half of a code more on the positive side, zero exact, scaled to 1 (QLoRA, section 3).
    """
    tail = 0.9677083  # the mean of 1 - 1 / 30 and 1 - 1 / 32
    above, below = (
        torch.special.ndtri(torch.linspace(tail, 0.5, count, dtype=torch.float64))[:-1]
        for count in (9, 8)
    )
    values = torch.cat([above, -below, torch.zeros(1, dtype=torch.float64)]).sort().values
    return (values / values.max()).tolist()


NF4 = nf4_values()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 70), st.sampled_from([8, 32]), st.booleans(), st.integers(0, 2**31))
def test_nf4(count, block, big_endian, seed):
    g = torch.Generator().manual_seed(seed)
    packed = torch.randint(0, 256, ((count + 1) // 2,), generator=g, dtype=torch.uint8)
    absmax = torch.rand(-(-count // block), generator=g)
    out = OPS.dequantize_nf4(
        packed.to("hpu"), absmax.to("hpu"), block, [count], torch.float32, big_endian
    )
    for index in range(count):
        byte = int(packed[index // 2])
        first = byte >> 4 if big_endian else byte & 15
        second = byte & 15 if big_endian else byte >> 4
        code = second if index % 2 else first
        expected = NF4[code] * absmax[index // block].item()
        assert out[index].item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_nf4_there_and_back():
    """Each value becomes the nearest of the sixteen, times the largest of its block."""
    x = random(3, 50)
    packed, absmax = OPS.quantize_nf4(x.to("hpu"), 32)
    back = OPS.dequantize_nf4(packed, absmax, 32, [3, 50], torch.float32).cpu()
    table = torch.tensor(NF4, dtype=torch.float64)
    for index, value in enumerate(x.flatten().double()):
        largest = x.flatten()[index // 32 * 32 :][:32].abs().max().double()
        nearest = (table * largest - value).abs().min()
        assert abs(back.flatten()[index].double() - value) <= nearest + 1e-6


@pytest.mark.parametrize("shape", [(2,), (3, 2), (2, 3, 2)])
def test_signed_nibbles(shape):
    g = torch.Generator().manual_seed(0)
    words = torch.randint(-(2**31), 2**31, shape, generator=g).to(torch.int32)
    full = [*shape[:-1], shape[-1] * 8]
    scale = torch.rand(full, generator=g)
    zero = torch.randn(full, generator=g)
    out = OPS.convert_from_int4(words.to("hpu"), scale.to("hpu"), zero.to("hpu"), torch.float32)
    for place in itertools.product(*map(range, full)):
        word = int(words[(*place[:-1], place[-1] // 8)]) & 0xFFFFFFFF
        nibble = word >> (4 * (place[-1] % 8)) & 15
        value = nibble - 16 if nibble > 7 else nibble
        expected = (value - zero[place].item()) * scale[place].item()
        assert out[place].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_zero_points_are_subtracted_in_the_dtype_of_the_result():
    word = torch.tensor([[0x76543210]], dtype=torch.int32, device="hpu")
    zero, scale = (random(1, 8, seed=seed, dtype=torch.bfloat16) for seed in (1, 2))
    out = OPS.convert_from_int4(word, scale.to("hpu"), zero.to("hpu"), torch.bfloat16).cpu()
    exact = torch.arange(8).double() - zero.double()
    assert torch.equal(out, (exact.bfloat16().double() * scale.double()).bfloat16())
    assert not torch.equal(out, (exact * scale.double()).bfloat16()), "rounds only once"
