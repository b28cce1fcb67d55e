"""Fused attention (``FusedSDPA``, ``sdpa_recomp_fwd``, ``sdpa_fwd``) against float64 loops."""

import math

import pytest
import torch
from habana_frameworks.torch._ops import sdpa as implementation
from habana_frameworks.torch.hpex.kernels import FusedSDPA
from habana_frameworks.torch.hpex.kernels.FusedSDPA import (
    gqa_input_reshape_fwd,
    gqa_output_reshape,
    is_gqa,
)
from hypothesis import given, settings
from hypothesis import strategies as st

TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 2.5e-2, torch.float16: 3e-3}


def exact(
    q,
    k,
    v,
    mask=None,
    causal=False,
    scale=None,
    window=(-1, -1),
    sink=None,
    valid=None,
    left_padding=False,
):
    """Row by row in float64: output, row maximum, row sum."""
    batch, heads, queries, dim = q.shape
    keys, groups = k.shape[-2], k.shape[1]
    scale = 1 / math.sqrt(dim) if scale is None else scale
    out = torch.zeros(batch, heads, queries, v.shape[-1], dtype=torch.float64)
    lse = torch.full((batch, heads, queries), float("-inf"), dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            kv = h // (heads // groups)
            scores = q[b, h].double() @ k[b, kv].double().T * scale
            if mask is not None:
                full = mask.expand(batch, heads, queries, keys)[b, h]
                if mask.dtype == torch.bool:
                    scores = scores.masked_fill(~full, float("-inf"))
                else:
                    scores = scores + full.double()
            for i in range(queries):
                for j in range(keys):
                    hidden = causal and j > i
                    hidden |= window[0] >= 0 and j < i - window[0]
                    hidden |= window[1] >= 0 and j > i + window[1]
                    if valid is not None:
                        first = keys - valid[b] if left_padding else 0
                        last = keys if left_padding else valid[b]
                        hidden |= not (first <= j < last and first <= i < last)
                    if hidden:
                        scores[i, j] = float("-inf")
            for i in range(queries):
                row = scores[i]
                if sink is not None:
                    row = torch.cat((row, sink[h].double().reshape(1)))
                if torch.isinf(row).all():
                    continue
                weights = torch.softmax(row, -1)[:keys]
                out[b, h, i] = weights @ v[b, kv].double()
                lse[b, h, i] = torch.logsumexp(row, -1)
    return out, lse


def inputs(generator, dtype, batch, heads, groups, queries, keys, dim, v_dim):
    q = torch.randn(batch, heads, queries, dim, generator=generator).to(dtype)
    k = torch.randn(batch, groups, keys, dim, generator=generator).to(dtype)
    v = torch.randn(batch, groups, keys, v_dim, generator=generator).to(dtype)
    return q, k, v


def on_device(*tensors):
    return tuple(None if t is None else t.to("hpu") for t in tensors)


def check(actual, expected, dtype):
    assert actual.device.type == "hpu"
    assert actual.dtype == dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(actual.cpu().double(), expected, rtol=tolerance, atol=tolerance)


SHAPES = st.tuples(
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 24),
    st.integers(1, 24),
)


@settings(max_examples=60, deadline=None)
@given(
    SHAPES,
    st.sampled_from(sorted(TOLERANCE, key=str)),
    st.sampled_from(["none", "2d", "heads", "batch", "bool"]),
    st.booleans(),
    st.sampled_from([(-1, -1), (0, 0), (2, -1), (-1, 1), (3, 2)]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_recompute_kernel(shape, dtype, mask_kind, causal, window, with_sink, own_scale, seed):
    batch, groups, per_group, queries, keys, dim, v_dim = shape
    heads = groups * per_group
    generator = torch.Generator().manual_seed(seed)
    q, k, v = inputs(generator, dtype, batch, heads, groups, queries, keys, dim, v_dim)
    mask = {
        "none": lambda: None,
        "2d": lambda: torch.randn(queries, keys, generator=generator).to(dtype),
        "heads": lambda: torch.randn(1, heads, queries, keys, generator=generator).to(dtype),
        "batch": lambda: torch.randn(batch, 1, queries, keys, generator=generator).to(dtype),
        "bool": lambda: torch.rand(batch, 1, queries, keys, generator=generator) > 0.4,
    }[mask_kind]()
    sink = torch.randn(heads, generator=generator).to(dtype) if with_sink else None
    scale = 0.3 if own_scale else None
    out = FusedSDPA.apply(
        *on_device(q, k, v, mask),
        0.0,
        causal,
        scale,
        "fast",
        True,
        None,
        "right",
        False,
        False,
        window,
        *on_device(sink),
    )
    check(out, exact(q, k, v, mask, causal, scale, window, sink)[0], dtype)


@pytest.mark.parametrize("left_padding", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_valid_lengths_hide_padding(left_padding, dtype):
    generator = torch.Generator().manual_seed(3)
    q, k, v = inputs(generator, dtype, 3, 4, 2, 7, 7, 16, 16)
    valid = [7, 3, 1]
    side = "Left" if left_padding else "right"
    out = FusedSDPA.apply(
        *on_device(q, k, v),
        None,
        0.0,
        True,
        None,
        "None",
        True,
        torch.tensor(valid, dtype=torch.int32, device="hpu"),
        side,
    )
    expected, _ = exact(q, k, v, causal=True, valid=valid, left_padding=left_padding)
    check(out, expected, dtype)


def test_sink_counts_once_per_row():
    """With equal scores s and a sink s, n keys weigh 1/(n+1) each, however the keys are split."""
    keys = 300
    q = torch.zeros(1, 2, 5, 8, device="hpu")
    k = torch.randn(1, 2, keys, 8, device="hpu")
    v = torch.ones(1, 2, keys, 8, device="hpu")
    out = FusedSDPA.apply(
        q,
        k,
        v,
        None,
        0.0,
        False,
        None,
        "none",
        True,
        None,
        "right",
        False,
        False,
        (-1, -1),
        torch.zeros(2, device="hpu"),
    )
    torch.testing.assert_close(out.cpu(), torch.full((1, 2, 5, 8), keys / (keys + 1)))


def test_rows_that_see_nothing_are_zero():
    generator = torch.Generator().manual_seed(0)
    q, k, v = inputs(generator, torch.float32, 1, 2, 1, 4, 4, 8, 8)
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., 1:, :] = True
    for recompute in (True, False):
        out = FusedSDPA.apply(*on_device(q, k, v, mask), 0.0, False, None, "none", recompute)
        check(out, exact(q, k, v, mask)[0], torch.float32)


def test_slices_of_queries_give_the_same(monkeypatch):
    """Large masks are built in slices of queries: force slices of a few rows."""
    generator = torch.Generator().manual_seed(5)
    q, k, v = inputs(generator, torch.float32, 2, 4, 2, 23, 19, 16, 16)
    mask = torch.randn(2, 1, 23, 19, generator=generator)
    sink = torch.randn(4, generator=generator)
    monkeypatch.setattr(implementation, "_MASK_ELEMENTS_AT_ONCE", 100)
    out, m, linv, _ = torch.ops.hpu.sdpa_recomp_fwd(
        *on_device(q, k, v, mask),
        0.0,
        0.25,
        True,
        True,
        "none",
        None,
        "left",
        (4, -1),
        *on_device(sink),
    )
    expected, lse = exact(q, k, v, mask, True, 0.25, (4, -1), sink)
    check(out, expected, torch.float32)
    torch.testing.assert_close(
        (m - linv.log()).squeeze(-1).cpu().double(), lse, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("mode", ["none", "fast"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_merge_slices_of_keys(mode, dtype):
    """Attention over two halves of the keys, merged by m and linv, is attention over all keys."""
    generator = torch.Generator().manual_seed(11)
    q, k, v = inputs(generator, dtype, 1, 4, 4, 6, 10, 16, 16)
    parts = []
    for half in (slice(0, 4), slice(4, 10)):
        out, m, linv, seed = torch.ops.hpu.sdpa_recomp_fwd(
            *on_device(q, k[:, :, half], v[:, :, half]),
            None,
            0.0,
            0.25,
            False,
            True,
            mode,
            None,
            "left",
        )
        assert m.dtype == dtype
        assert linv.dtype == (
            torch.bfloat16 if (mode, dtype) == ("fast", torch.bfloat16) else torch.float32
        )
        assert seed.shape == (1,)
        assert seed.dtype == torch.int32
        parts.append((out.cpu().double(), m.cpu().double(), 1 / linv.cpu().double()))
    (o1, m1, l1), (o2, m2, l2) = parts
    top = torch.maximum(m1, m2)
    w1, w2 = l1 * (m1 - top).exp(), l2 * (m2 - top).exp()
    merged = (o1 * w1 + o2 * w2) / (w1 + w2)
    torch.testing.assert_close(
        merged, exact(q, k, v, scale=0.25)[0], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )


def test_inference_returns_no_statistics():
    q = torch.randn(1, 2, 4, 8, device="hpu")
    _, m, linv, seed = torch.ops.hpu.sdpa_recomp_fwd(
        q, q, q, None, 0.0, 0.3, True, False, "none", None, "left"
    )
    assert (m.shape, linv.shape, seed.shape) == ((1,), (1,), (1,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probabilities(dtype):
    generator = torch.Generator().manual_seed(2)
    q, k, v = inputs(generator, dtype, 2, 4, 2, 5, 7, 16, 12)
    out, probabilities = FusedSDPA.apply(
        *on_device(q, k, v), None, 0.0, True, None, "none", False, None, "left", False, True
    )
    check(out, exact(q, k, v, causal=True)[0], dtype)
    assert probabilities.shape == (2, 4, 5, 7)
    torch.testing.assert_close(
        probabilities.float().sum(-1).cpu(), torch.ones(2, 4, 5), rtol=2e-2, atol=2e-2
    )
    assert probabilities[:, :, 0, 1:].count_nonzero().item() == 0


def test_grouped_reshapes():
    q, k, v = torch.randn(2, 6, 3, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    assert is_gqa(q, k)
    assert not is_gqa(q, k[:, :1])
    assert not is_gqa(q, q)
    mask = torch.randn(2, 1, 3, 5)
    gq, gk, gv, gmask = gqa_input_reshape_fwd(q, k, v, mask)
    assert (gq.shape, gk.shape, gv.shape) == ((2, 2, 3, 3, 8), (2, 2, 1, 5, 8), (2, 2, 1, 5, 8))
    assert gmask.shape == (2, 1, 1, 3, 5)
    assert gqa_input_reshape_fwd(q, k, v, mask.expand(2, 6, 3, 5))[3].shape == (2, 2, 3, 3, 5)
    assert torch.equal(gqa_output_reshape(gq), q)


def test_empty_inputs_give_an_empty_output():
    q = torch.empty(2, 4, 0, 8, device="hpu")
    k = torch.randn(2, 4, 3, 8, device="hpu")
    assert FusedSDPA.apply(q, k, k[..., :5]).shape == (2, 4, 0, 5)


def test_one_head_of_keys_is_shared_by_all():
    generator = torch.Generator().manual_seed(7)
    q, k, v = inputs(generator, torch.float32, 2, 5, 1, 4, 6, 8, 8)
    check(FusedSDPA.apply(*on_device(q, k, v)), exact(q, k, v)[0], torch.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"softmax_mode": "fp32"}, "bfloat16"),
        ({"softmax_mode": "swift"}, "softmax_mode"),
        ({"seq_padding_type": "middle"}, "seq_padding_type"),
        ({"sink": True, "recompute_mode": False}, "recompute"),
        ({"window_size": (1, 1), "recompute_mode": False}, "recompute"),
        ({"valid_seq_len": True, "is_causal": False}, "is_causal"),
        ({"attn_mask": True}, r"\[queries, keys\]"),
    ],
)
def test_wrong_combinations_are_refused(changes, message):
    q = torch.randn(1, 2, 4, 8, device="hpu")
    arguments = {
        "attn_mask": None,
        "dropout_p": 0.0,
        "is_causal": True,
        "scale": None,
        "softmax_mode": "none",
        "recompute_mode": True,
        "valid_seq_len": None,
        "seq_padding_type": "left",
        "return_dropout_mask": False,
        "return_attn_probs": False,
        "window_size": (-1, -1),
        "sink": None,
    } | changes
    if arguments["sink"] is not None:
        arguments["sink"] = torch.zeros(2, device="hpu")
    if arguments["valid_seq_len"] is not None:
        arguments["valid_seq_len"] = torch.ones(1, dtype=torch.int32, device="hpu")
    if arguments["attn_mask"] is not None:
        arguments["attn_mask"] = torch.zeros(3, 3, device="hpu")
    with pytest.raises(ValueError, match=message):
        FusedSDPA.apply(q, q, q, *arguments.values())


def test_large_windowed_attention_holds_no_full_mask():
    """4096 x 4096: a full float32 mask for 2 sequences would be 128 MiB."""
    q = torch.randn(2, 1, 4096, 16, device="hpu")
    torch.hpu.reset_peak_memory_stats()
    before = torch.hpu.max_memory_allocated()
    out = FusedSDPA.apply(
        q,
        q,
        q,
        None,
        0.0,
        True,
        None,
        "fast",
        True,
        torch.tensor([4096, 100], device="hpu"),
        "right",
        False,
        False,
        (256, 0),
    )
    assert torch.hpu.max_memory_allocated() - before < 100 << 20
    some = slice(1000, 1003)
    rows, keys = q[:1, :, some].cpu(), q[:1].cpu()
    scores = (rows.double() @ keys.double().mT) / 4
    for index, position in enumerate(range(some.start, some.stop)):
        hidden = torch.ones(4096, dtype=torch.bool)
        hidden[position - 256 : position + 1] = False
        scores[..., index, :].masked_fill_(hidden, float("-inf"))
    expected = scores.softmax(-1) @ keys.double()
    torch.testing.assert_close(out[:1, :, some].cpu().double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hidden", [float("-inf"), -1.0e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sequences_packed_into_one_batch(dtype, hidden):
    """Each sequence sees its own keys only, whatever lies beside it; the rest is padding."""
    hidden = max(hidden, -3.0e4) if dtype == torch.float16 and hidden > -math.inf else hidden
    lengths = [1, 130, 64, 97]
    total, padding, heads, groups, dim = sum(lengths), 20, 4, 2, 32
    generator = torch.Generator().manual_seed(7)
    tokens = total + padding
    q = torch.randn(1, heads, tokens, dim, generator=generator).to(dtype)
    k = torch.randn(1, groups, tokens, dim, generator=generator).to(dtype)
    v = torch.randn(1, groups, tokens, dim, generator=generator).to(dtype)
    owner = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    owner = torch.cat([owner, torch.full((padding,), -1)])
    index = torch.arange(tokens)
    visible = (owner[:, None] == owner) & (owner >= 0) & (index[:, None] >= index)
    mask = torch.zeros(tokens, tokens, dtype=dtype).masked_fill_(~visible, hidden)
    sink = torch.randn(heads, generator=generator).to(dtype)
    on_card = on_device(q, k, v, mask[None, None])
    plain = FusedSDPA.apply(*on_card, 0.0, False, 0.3, "none", True, None, "right")
    with_sink = FusedSDPA.apply(
        *on_card, 0.0, False, 0.3, "none", True, None, "right", False, False, (-1, -1), sink.hpu()
    )
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    start = 0
    for length in lengths:
        rows = slice(start, start + length)
        wide_k = k[:, :, rows].double().repeat_interleave(heads // groups, 1)
        wide_v = v[:, :, rows].double().repeat_interleave(heads // groups, 1)
        scores = (q[:, :, rows].double() @ wide_k.mT) * 0.3
        scores.masked_fill_(torch.ones(length, length).triu(1).bool(), float("-inf"))
        expected = scores.softmax(-1) @ wide_v
        torch.testing.assert_close(
            plain[:, :, rows].cpu().double(), expected, rtol=tolerance, atol=tolerance
        )
        column = sink.double().view(1, heads, 1, 1).expand(1, heads, length, 1)
        weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
        torch.testing.assert_close(
            with_sink[:, :, rows].cpu().double(), weights @ wide_v, rtol=tolerance, atol=tolerance
        )
        start += length
    assert plain.isfinite().all()


@pytest.mark.parametrize("mask_kind", ["none", "batch", "heads", "shared"])
@pytest.mark.parametrize(
    ("batch", "groups", "per_group", "keys", "dim"),
    [(3, 4, 3, 128, 64), (1, 2, 7, 45, 96), (2, 1, 4, 1, 32), (2, 3, 1, 19, 128)],
)
def test_one_query_per_sequence(batch, groups, per_group, keys, dim, mask_kind):
    generator = torch.Generator().manual_seed(7)
    heads = groups * per_group
    q, k, v = inputs(generator, torch.bfloat16, batch, heads, groups, 1, keys, dim, dim)
    shape = {
        "none": None,
        "batch": (batch, 1, 1, keys),
        "heads": (1, heads, 1, keys),
        "shared": (1, 1, 1, keys),
    }[mask_kind]
    mask = None
    if shape is not None:
        hidden = torch.rand(shape, generator=generator) < 0.4
        hidden[..., -1] = False
        mask = torch.randn(shape, generator=generator).masked_fill(hidden, float("-inf"))
        mask = mask.to(torch.bfloat16)
    for sink in (None, torch.randn(heads, generator=generator)):
        arguments = (*on_device(q, k, v, mask), 0.0, False, None, "fast", True, None, "right")
        out = FusedSDPA.apply(*arguments, False, False, (-1, -1), *on_device(sink))
        expected, _ = exact(q, k, v, mask, sink=sink)
        # The result is rounded, and once more with a sink; without AVX-512 BF16 the host's kernel
        # rounds the weights of the keys, too.
        roundings = 1 if sink is None else 2
        spread, _ = exact(q, k, v.abs(), mask, sink=sink)
        allowed = 2**-8 * (roundings * expected.abs() + spread) + 1e-5
        assert ((out.cpu().double() - expected).abs() <= allowed).all()


def test_one_query_with_nothing_to_see_or_a_key_nobody_wrote():
    q, k, v = (torch.ones(2, 2, n, 64, dtype=torch.bfloat16, device="hpu") for n in (1, 3, 3))
    hidden = torch.full((2, 1, 1, 3), float("-inf"), dtype=torch.bfloat16)
    hidden[1] = 0
    out = FusedSDPA.apply(q, k, v, hidden.to("hpu"))
    assert out[0].eq(0).all()
    assert out[1].eq(1).all()
    k[:, :, 2] = float("nan")
    assert FusedSDPA.apply(q, k, v).isnan().all()
