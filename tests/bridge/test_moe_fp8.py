"""``mixture_of_experts`` with FP8 weights that have one scale per expert, in float64."""

import pytest
import torch
from habana_frameworks.torch._device import DeviceGraph
from habana_frameworks.torch._ops.fp8_range import fp8_max
from hypothesis import given, settings
from hypothesis import strategies as st

from .expert_case import (
    E4M3,
    E5M2,
    OPS,
    STEP,
    Case,
    gated,
    near,
    stored,
    swiglu_oai,
    to_fp8,
)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([E4M3, E5M2]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_fp8_experts(seed, dtype, permuted, fused, numbers, dynamic, per_token):
    case = Case(seed)
    g = case.g
    scale_rows = torch.rand(len(case.hidden), 1, generator=g) + 0.01
    scale_x = scale_rows if per_token and not numbers else torch.tensor(0.02)
    inner_scale = (torch.rand(case.count, generator=g) / 16 + 0.01).tolist()
    w_scales = [(torch.rand(case.count, generator=g) / 50 + 0.004).tolist() for _ in range(3)]
    hidden = (case.hidden / scale_x).to(dtype)
    if fused:
        w_scales[1] = w_scales[0]
    gates, ups = zip(*(w.chunk(2, dim=1) for w in case.w12), strict=True)
    w1, w2, w3 = (to_fp8(w, dtype, s) for w, s in zip((gates, ups, case.w3), w_scales, strict=True))
    both = [torch.cat(pair, dim=1) for pair in zip(w1, w2, strict=True)]

    def scales(values):
        return values if numbers else [torch.tensor(v).to("hpu") for v in values]

    named = {"permuted_weights": permuted, "activation": "silu", **case.range()}
    named["d_scale_hidden_states"] = scale_x.item() if numbers else scale_x.to("hpu")
    if not dynamic:
        named["d_scale_intermediate_hidden_states"] = scales(inner_scale)
    if fused:
        named |= {"w12": stored(both, permuted), "d_scale_w12": scales(w_scales[0])}
    else:
        named |= {"w1": stored(w1, permuted), "d_scale_w1": scales(w_scales[0])}
        named |= {"w2": stored(w2, permuted), "d_scale_w2": scales(w_scales[1])}
    named |= {"w3": stored(w3, permuted), "d_scale_w3": scales(w_scales[2])}
    arguments = ("hidden_states", "expert_routing_table", "router_weights")
    named |= dict(zip(arguments, case.tokens(hidden), strict=True))
    out = OPS(**named)  # the overload follows from the names of the arguments
    dequantised = [
        [t.double() * s for t, s in zip(w, ss, strict=True)]
        for w, ss in zip((w1, w2, w3), w_scales, strict=True)
    ]
    expected = case.exact(
        hidden.double() * scale_x,
        [torch.cat(pair, dim=1) for pair in zip(*dequantised[:2], strict=True)],
        dequantised[2],
        gated if dynamic else lambda i, x: clipped(gated(i, x), inner_scale[i], dtype),
    )
    near(out, expected, STEP[dtype] / 2)


def clipped(values, scale, dtype):
    """FP8 of limited range, without its rounding."""
    return values.clamp(-scale * fp8_max(dtype), scale * fp8_max(dtype))


@pytest.mark.parametrize("scale", [2.0**-4, 2.0**-11])
def test_inner_values_saturate_at_the_range_of_the_card(scale):
    """One expert, exact numbers: the inner value 2 is kept, or cut to the largest FP8 number."""
    one = torch.ones(1, 1, device="hpu")
    fp8 = one.to(E4M3)
    out = OPS.fp8_fused_weights_scalars(
        (2 * one).to(E4M3),
        torch.zeros(1, 1, dtype=torch.int64, device="hpu"),
        one.bfloat16(),
        [torch.ones(1, 2).to(E4M3).to("hpu")],
        [fp8],
        1.0,
        [scale],
        [1.0],
        [1.0],
        False,
        "relu",
        0,
        0,
    )
    expected = min(4.0, fp8_max(E4M3) * scale)
    assert out.item() == pytest.approx(expected, rel=2**-8)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.booleans())
def test_fp8_experts_with_biases(seed, permuted, numbers):
    case = Case(seed)
    scale_w, scale_i, scale_x = [0.01] * case.count, [0.05] * case.count, 0.02
    hidden = (case.hidden / scale_x).to(E4M3)
    w12, w3 = to_fp8(case.w12, E4M3, scale_w), to_fp8(case.w3, E4M3, scale_w)

    def scales(values):
        return values if numbers else [torch.tensor(v, device="hpu") for v in values]

    operator = OPS.bias_fp8_fused_weights_scalars if numbers else OPS.bias_fp8_fused_weights
    out = operator(
        *case.tokens(hidden),
        stored(w12, permuted),
        stored(w3, permuted),
        *([b[0].bfloat16().to("hpu") for b in bias] for bias in case.biases),
        scale_x if numbers else torch.tensor(scale_x, device="hpu"),
        scales(scale_i),
        scales(scale_w),
        scales(scale_w),
        permuted_weights=permuted,
        **case.range(),
        limit=1.5,
    )
    expected = case.exact(
        hidden.double() * scale_x,
        [w.double() * 0.01 for w in w12],
        [w.double() * 0.01 for w in w3],
        lambda _, both: swiglu_oai(both, 1.702, 1.5),
        case.biases,
    )
    near(out, expected, STEP[E4M3] / 2)


def test_fp8_experts_are_one_launch_of_a_graph_that_follows_its_inputs():
    case, other = Case(5), Case(6)
    w12, w3 = (to_fp8(w, E4M3, [0.01] * case.count) for w in (case.w12, case.w3))
    static = case.tokens((case.hidden / 0.02).to(E4M3))
    arguments = (stored(w12, False), stored(w3, False), 0.02, [0.01] * case.count)
    tail = ([0.01] * case.count, False, "silu", *case.range().values())
    run = OPS.fp8_fused_weights_scalars_dynamic
    graph = DeviceGraph()
    graph.capture_begin()
    out = run(*static, *arguments, *tail)
    graph.capture_end()
    fresh = other.tokens((other.hidden / 0.02).to(E4M3))
    for target, source in zip(static, fresh, strict=True):
        target.copy_(source)
    graph.replay()
    assert torch.equal(out, run(*fresh, *arguments, *tail))
    assert len([name for name in graph.operators() if "expert" in name]) == 1


def test_shapes_without_computing():
    """Traced, an operator gives the shape and the dtype that it gives when it runs."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    case = Case(7)
    w12, w3 = (to_fp8(w, E4M3, [1.0] * case.count) for w in (case.w12, case.w3))
    real = case.tokens(case.hidden.to(E4M3)), stored(w12, False), stored(w3, False)
    ones = [1.0] * case.count
    tail = (False, "silu", *case.range().values())

    def run(tokens, w12, w3):
        return OPS.fp8_fused_weights_scalars(*tokens, w12, w3, 1.0, ones, ones, ones, *tail)

    out = run(*real)
    with FakeTensorMode() as mode:
        fake = run(*([mode.from_tensor(t) for t in part] for part in real))
    assert (fake.shape, fake.dtype) == (out.shape, out.dtype)


def test_wrong_arguments_are_refused():
    case = Case(8)
    w12, w3 = (to_fp8(w, E4M3, [1.0] * case.count) for w in (case.w12, case.w3))
    lists = stored(w12, False), stored(w3, False)
    ones = [1.0] * case.count
    tail = (False, "silu", *case.range().values())
    run = OPS.fp8_fused_weights_scalars
    with pytest.raises(ValueError, match="must be FP8"):
        run(*case.tokens(case.hidden), *lists, 1.0, ones, ones, ones, *tail)
    tokens = case.tokens(case.hidden.to(E4M3))
    with pytest.raises(ValueError, match="2 tensors in d_scale_w12"):
        run(*tokens, *lists, 1.0, ones, ones[:2], ones, *tail)
