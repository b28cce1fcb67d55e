"""Scans, short convolutions, running softmax and masked products, step by step in float64."""

import math

import pytest
import torch
from habana_frameworks.torch.utils.experimental import _get_device_type, synDeviceType
from hypothesis import given, settings
from hypothesis import strategies as st

OPS = torch.ops.hpu
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
dtypes = st.sampled_from(list(TOLERANCE))


def close(out, expected, dtype):
    assert out.dtype == dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(out.cpu().double(), expected, rtol=tolerance, atol=tolerance)


@settings(max_examples=20, deadline=None)
@given(dtypes, st.integers(1, 2), st.integers(1, 6), st.integers(1, 4), st.integers(1, 5))
def test_selective_scan(dtype, batch, positions, states, channels):
    g = torch.Generator().manual_seed(positions)

    def random(*shape):
        return torch.randn(*shape, generator=g).to(dtype)

    state = random(batch, 1, states, channels)
    x, z = random(batch, positions, 1, channels), random(batch, positions, 1, channels)
    dt = random(batch, positions, 1, channels).abs()
    A, D = -random(1, 1, states, channels).abs(), random(1, 1, 1, channels)
    B, C = random(batch, positions, states, 1), random(batch, positions, states, 1)
    all_states = OPS.mamba_pscan(*(t.to("hpu") for t in (state, x, dt, A, B)))
    expected = torch.empty(batch, positions, states, channels, dtype=torch.float64)
    for b in range(batch):
        for s in range(states):
            for c in range(channels):
                h = state[b, 0, s, c].item()
                for t in range(positions):
                    d = dt[b, t, 0, c].item()
                    h = math.exp(A[0, 0, s, c].item() * d) * h
                    h += d * B[b, t, s, 0].item() * x[b, t, 0, c].item()
                    expected[b, t, s, c] = h
    close(all_states, expected, dtype)
    out = OPS.mamba_pscan_update(all_states, *(t.to("hpu") for t in (x, C, D, z)))
    sums = (all_states.cpu().double() * C.double()).sum(-2, keepdim=True)
    gate = z.double() / (1 + (-z.double()).exp())
    close(out, (sums + D.double() * x.double()) * gate, dtype)


def conv(values, state, weight, bias, activation):
    """One position at a time; the window moves over state and values."""
    window, out = list(state.double()), []
    for value in values.double():
        window.append(value)
        y = sum(w.double() * v for w, v in zip(weight, window, strict=True))
        if bias is not None:
            y = y + bias.double()
        out.append(y / (1 + (-y).exp()) if activation else y)
        window.pop(0)
    return torch.stack(out) if out else values.double(), torch.stack(window)


@settings(max_examples=20, deadline=None)
@given(dtypes, st.integers(2, 4), st.booleans(), st.booleans(), st.data())
def test_convolution_of_ragged_sequences(dtype, width, with_bias, activation, data):
    lengths = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
    g = torch.Generator().manual_seed(sum(lengths))
    channels, lines = 3, len(lengths) + 2

    def random(*shape):
        return torch.randn(*shape, generator=g).to(dtype)

    x, state, weight = random(sum(lengths), channels), random(lines, width - 1, channels), None
    weight, bias = random(width, channels), random(channels) if with_bias else None
    index = torch.randperm(lines, generator=g)[: len(lengths)].to(torch.int32)
    index[0] = data.draw(st.sampled_from([-1, int(index[0])]))
    initial = torch.randint(0, 2, (len(lengths),), generator=g, dtype=torch.int32)
    starts = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    arguments = (x, state, weight, bias, initial, starts, index)
    out, after = OPS.causal_conv1d_fwd(
        *(None if t is None else t.to("hpu") for t in arguments), activation, -1
    )
    expected, expected_state = torch.zeros(x.shape, dtype=torch.float64), state.double()
    for number, line in enumerate(index.tolist()):
        if line == -1:
            continue
        own = slice(int(starts[number]), int(starts[number + 1]))
        before = state[line] if initial[number] else torch.zeros_like(state[line])
        expected[own], expected_state[line] = conv(x[own], before, weight, bias, activation)
    close(out, expected, dtype)
    close(after, expected_state, dtype)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_convolution_step(dtype):
    g = torch.Generator().manual_seed(1)
    x, state = (torch.randn(2, n, 5, generator=g).to(dtype) for n in (4, 3))
    weight, bias = torch.randn(4, 5, generator=g).to(dtype), torch.randn(5, generator=g).to(dtype)
    out, after = OPS.causal_conv1d_update(
        *(t.to("hpu") for t in (x, state, weight, bias)), activation=True, pad_slot_id=-1
    )
    for row in range(2):
        expected, last = conv(x[row], state[row], weight, bias, True)
        close(out[row], expected, dtype)
        close(after[row], last, dtype)
    with pytest.raises(ValueError, match=r"state length \+ 1"):
        OPS.causal_conv1d_update(*(t.to("hpu") for t in (x, state, weight[:3], bias)))


def statistics(rows, dtype, value):
    """As the card keeps them: on Gaudi 3 eight rows at the start of each vector of 256 bytes."""
    gaudi3 = _get_device_type() == synDeviceType.synDeviceGaudi3
    size = -(-rows // 8) * 256 // dtype.itemsize if gaudi3 else rows
    return torch.full((2, size), value, dtype=dtype, device="hpu")


def rows_of(stored, rows):
    if stored.shape[-1] == rows:
        return stored.cpu().double()
    vectors = stored.unflatten(-1, (-1, 256 // stored.dtype.itemsize))
    return vectors[..., :8].flatten(-2)[..., :rows].cpu().double()


@settings(max_examples=20, deadline=None)
@given(dtypes, st.integers(1, 19), st.lists(st.integers(1, 7), min_size=1, max_size=3))
def test_running_softmax_over_slices(dtype, rows, slices):
    """Accumulated slice by slice and divided at the end, it is the softmax over all keys."""
    g = torch.Generator().manual_seed(rows)
    parts = [torch.randn(2, rows, keys, generator=g).mul(3).to(dtype) for keys in slices]
    values = [torch.randn(2, keys, 4, generator=g).double() for keys in slices]
    highest, total = statistics(rows, dtype, -math.inf), statistics(rows, dtype, 0.0)
    sums = torch.zeros(2, rows, 4, dtype=torch.float64)
    for scores, value in zip(parts, values, strict=True):
        weights, highest, total, fixup = OPS.softmax_fa2(
            scores.to("hpu"), inputM=highest, inputL=total
        )
        assert weights.dtype == highest.dtype == fixup.dtype == dtype
        sums = sums * rows_of(fixup, rows).unsqueeze(-1) + weights.cpu().double() @ value
    scores = torch.cat(parts, dim=-1).double()
    torch.testing.assert_close(rows_of(highest, rows), scores.amax(-1), rtol=0, atol=0)
    expected = scores.softmax(-1) @ torch.cat(values, dim=1)
    close((sums / rows_of(total, rows).unsqueeze(-1)).to(dtype), expected, dtype)


def test_running_softmax_of_fp8_scores():
    scores = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    narrow = scores.to(torch.float8_e4m3fn)
    weights, highest, total, _ = OPS.softmax_fa2(
        narrow.to("hpu"),
        descale=torch.tensor([0.5], device="hpu"),
        inputM=statistics(5, torch.bfloat16, -math.inf),
        inputL=statistics(5, torch.bfloat16, 0.0),
    )
    exact = narrow.double() / 2
    expected = (exact - exact.amax(-1, keepdim=True)).exp()
    close(rows_of(highest, 5).bfloat16(), exact.amax(-1), torch.bfloat16)
    close(rows_of(total, 5).bfloat16(), expected.sum(-1), torch.bfloat16)
    # The largest weight is 1; the largest power of two below 240 is 128.
    torch.testing.assert_close(weights.cpu().double() / 128, expected, rtol=2**-4, atol=1e-4)


def test_running_softmax_refuses_too_small_statistics():
    scores = torch.zeros(2, 9, 4, device="hpu")
    small = torch.zeros(2, 8, device="hpu")
    with pytest.raises((ValueError, RuntimeError)):
        OPS.softmax_fa2(scores, inputM=small, inputL=small)
    with pytest.raises(ValueError, match="last dimension"):
        OPS.softmax_fa2(scores, inputM=small, inputL=small, dim=0)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_product_with_masks(left, right, dtype):
    g = torch.Generator().manual_seed(0)

    def random(heads, rows, columns, transposed):
        shape = (2, heads, columns, rows) if transposed else (2, heads, rows, columns)
        return torch.randn(shape, generator=g).to(dtype)

    a, b = random(3, 4, 5, left), random(3, 5, 6, right)
    mask_a, mask_b = random(1, 4, 5, left), random(1, 5, 6, right)
    out = OPS.masked_batch_gemm(*(t.to("hpu") for t in (a, b, mask_a, mask_b)), left, right)
    a, mask_a = (t.mT if left else t for t in (a, mask_a))
    b, mask_b = (t.mT if right else t for t in (b, mask_b))
    expected = torch.einsum("bhmk,bhkn->bhmn", a.double(), b.double())
    expected = (
        expected
        + torch.einsum("bmk,bkn->bmn", mask_a[:, 0].double(), mask_b[:, 0].double())[:, None]
    )
    close(out, expected, dtype)
