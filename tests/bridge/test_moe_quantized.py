"""``mixture_of_experts`` with FP8 and MXFP4 weights, and its measuring overloads, in float64."""

import math

import pytest
import torch
from habana_frameworks.torch._device import DeviceGraph
from habana_frameworks.torch._ops.fp8_range import fp8_max
from hypothesis import given, settings
from hypothesis import strategies as st

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
STEP = {E4M3: 2**-3, E5M2: 2**-2}
"""The widest relative gap between neighbours of each format."""
OPS = torch.ops.hpu.mixture_of_experts


def silu(x):
    return x * torch.sigmoid(x)


def swiglu_oai(both, alpha, limit):
    gate, up = both[..., ::2].clamp(max=limit), both[..., 1::2].clamp(-limit, limit)
    return (up + 1) * gate * torch.sigmoid(alpha * gate)


class Case:
    """Random tokens, routes and experts of which this rank holds ``first..last``."""

    def __init__(self, seed, tokens=7, hidden=40, ffn=24, total=5, per_token=2, first=1, last=3):
        g = self.g = torch.Generator().manual_seed(seed)
        self.first, self.count = first, last - first + 1
        self.hidden = torch.randn(tokens, hidden, generator=g)
        self.routing = torch.stack(
            [torch.randperm(total, generator=g)[:per_token] for _ in range(tokens)]
        )
        self.weights = torch.rand(tokens, per_token, generator=g).bfloat16()
        self.w12 = self.normal(hidden, 2 * ffn)
        self.w3 = self.normal(ffn, hidden)
        self.biases = [self.normal(1, n) for n in (2 * ffn, hidden)]

    def normal(self, rows, columns):
        scale = rows**-0.5
        return [torch.randn(rows, columns, generator=self.g) * scale for _ in range(self.count)]

    def range(self):
        return {"experts_min": self.first, "experts_max": self.first + self.count - 1}

    def tokens(self, hidden):
        return [t.to("hpu") for t in (hidden, self.routing, self.weights)]

    def exact(self, hidden, w12, w3, inner, biases=None):
        out = torch.zeros(self.hidden.shape, dtype=torch.float64)
        for token, slot in torch.cartesian_prod(
            torch.arange(len(self.routing)), torch.arange(self.routing.shape[1])
        ).tolist():
            index = int(self.routing[token, slot]) - self.first
            if not 0 <= index < self.count:
                continue
            both = hidden[token].double() @ w12[index].double()
            if biases:
                both = both + biases[0][index][0].double()
            value = inner(index, both) @ w3[index].double()
            if biases:
                value = value + biases[1][index][0].double()
            out[token] += self.weights[token, slot].double() * value
        return out


def gated(_, both):
    gate, up = both.chunk(2, dim=-1)
    return silu(gate) * up


def near(out, expected, tolerance):
    assert out.dtype == torch.bfloat16
    assert out.device.type == "hpu"
    error = (out.cpu().double() - expected).norm() / expected.norm().clamp(min=1e-9)
    assert error < tolerance, f"relative error {error:.4f}"


def stored(tensors, permuted):
    return [(t.T.contiguous() if permuted else t).to("hpu") for t in tensors]


def to_fp8(tensors, dtype, scales):
    return [
        (t / s).clamp(-fp8_max(dtype), fp8_max(dtype)).to(dtype)
        for t, s in zip(tensors, scales, strict=True)
    ]


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


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([8, 16, 32]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_blockwise_experts(seed, block, permuted, fused, scale_dtype):
    """Sizes that are no multiples of the block: the last blocks are cut."""
    case = Case(seed, hidden=40, ffn=20)

    def quantised(weight):
        rows, columns = weight.shape
        scales = torch.rand(math.ceil(rows / block), math.ceil(columns / block), generator=case.g)
        scales = (scales / 50 + 0.01).to(scale_dtype)
        factor = torch.empty(rows, columns, dtype=torch.float64)
        for r in range(rows):
            for c in range(columns):
                factor[r, c] = scales[r // block, c // block]
        values = (weight.double() / factor).to(E4M3)
        return values.to("hpu"), scales.to("hpu"), values.double() * factor

    def three(tensors):
        stored = [t.T if permuted else t for t in tensors]
        packed, scales, exact = zip(*map(quantised, stored), strict=True)
        return list(packed), list(scales), [e.T if permuted else e for e in exact]

    tail = (block, permuted, "silu", *case.range().values())
    hidden = case.hidden.bfloat16()
    w3, s3, exact3 = three(case.w3)
    if fused:
        w12, s12, exact12 = three(case.w12)
        out = OPS.fp8_fused_weights_blockwise(*case.tokens(hidden), w12, w3, s12, s3, *tail)
    else:
        gates, ups = zip(*(w.chunk(2, dim=1) for w in case.w12), strict=True)
        (w1, s1, exact1), (w2, s2, exact2) = three(gates), three(ups)
        exact12 = [torch.cat(pair, dim=1) for pair in zip(exact1, exact2, strict=True)]
        out = OPS.fp8_blockwise(*case.tokens(hidden), w1, w2, w3, s1, s2, s3, *tail)
    near(out, case.exact(hidden, exact12, exact3, gated), 0.02)


E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def mxfp4(case, rows, columns):
    """Random packed bytes and scales, and the exact numbers, one nibble at a time."""
    packed = torch.randint(0, 256, (rows, columns // 2), generator=case.g, dtype=torch.uint8)
    scales = torch.randint(
        118, 124, (rows, math.ceil(columns / 32)), generator=case.g, dtype=torch.uint8
    )
    exact = torch.empty(rows, columns, dtype=torch.float64)
    for r in range(rows):
        for c in range(columns):
            byte = int(packed[r, c // 2])
            nibble = byte >> 4 if c % 2 else byte & 15
            value = E2M1[nibble & 7] * (-1 if nibble & 8 else 1)
            exact[r, c] = value * 2.0 ** (int(scales[r, c // 32]) - 127)
    return packed.to("hpu"), scales.to("hpu"), exact.T


def compiled(operator):
    """The card has MXFP4 experts in compiled graphs only."""
    torch._dynamo.reset()
    return torch.compile(operator, backend="hpu_backend", fullgraph=True)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["separate", "fused", "bias"])
def test_mxfp4_experts(kind, seed):
    """48 and 80 columns: the last group of 32 is half empty."""
    hidden_size, ffn = 48, 80
    case = Case(seed, hidden=hidden_size, ffn=ffn)

    def three(rows, columns):
        return map(list, zip(*(mxfp4(case, rows, columns) for _ in range(case.count)), strict=True))

    hidden = case.hidden.bfloat16()
    w3, s3, exact3 = three(hidden_size, ffn)
    named = {"block_size": 32, "permuted_weights": True, "is_fp4": True, **case.range()}
    if kind == "separate":
        w1, s1, exact1 = three(ffn, hidden_size)
        w2, s2, exact2 = three(ffn, hidden_size)
        exact12 = [torch.cat(pair, dim=1) for pair in zip(exact1, exact2, strict=True)]
        lists = (w1, w2, w3, s1, s2, s3)
        operator = OPS.mxfp4
    else:
        w12, s12, exact12 = three(2 * ffn, hidden_size)
        biases = [[b[0].bfloat16().to("hpu") for b in bias] for bias in case.biases]
        bias = biases if kind == "bias" else []
        lists = (w12, w3, *bias, s12, s3)
        operator = OPS.bias_mxfp4_fused_weights if bias else OPS.mxfp4_fused_weights
    if kind != "bias":
        named["activation"] = "silu"
    out = compiled(operator)(*case.tokens(hidden), *lists, **named)
    expected = (
        case.exact(hidden, exact12, exact3, lambda _, b: swiglu_oai(b, 1.702, 7.0), case.biases)
        if kind == "bias"
        else case.exact(hidden, exact12, exact3, gated)
    )
    near(out, expected, 0.02)
    with pytest.raises(NotImplementedError, match="no eager kernel"):
        operator(*case.tokens(hidden), *lists, **named)
    for wrong in ({"permuted_weights": False}, {"is_fp4": False}, {"block_size": 16}):
        with pytest.raises(Exception, match=f"{next(iter(wrong))} must be"):
            compiled(operator)(*case.tokens(hidden), *lists, **(named | wrong))


@pytest.mark.parametrize("fused", [False, True])
def test_measurement(fused):
    case = Case(3)
    gates, ups = zip(*(w.chunk(2, dim=1) for w in case.w12), strict=True)
    lists = (case.w12, case.w3) if fused else (gates, ups, case.w3)
    lists = [[t.contiguous().to("hpu") for t in part] for part in lists]
    tail = (False, "silu", *case.range().values())
    out, largest = OPS(*case.tokens(case.hidden), *lists, *tail, True)
    plain = OPS(*case.tokens(case.hidden), *lists, *tail)
    assert torch.equal(out, plain)
    expected = [gated(0, case.hidden.double() @ w12.double()).max().item() for w12 in case.w12]
    assert largest.device.type == "hpu"
    torch.testing.assert_close(largest.cpu(), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    _, off = OPS(*case.tokens(case.hidden), *lists, *tail, False)
    assert off.count_nonzero().item() == 0


@pytest.mark.parametrize("per_token", [False, True])
def test_measurement_with_biases(per_token):
    """Only an expert's own tokens count, by magnitude."""
    case = Case(4)
    lists = [
        [t.to("hpu") for t in part]
        for part in (case.w12, case.w3, *([b[0] for b in bias] for bias in case.biases))
    ]
    common = {"permuted_weights": False, **case.range()}
    out, largest = OPS.measurement_bias_fused_weights(
        *case.tokens(case.hidden), *lists, **common, measure_per_token=per_token
    )
    plain = OPS.bias_fused_weights(*case.tokens(case.hidden), *lists, **common)
    assert torch.equal(out, plain)
    expected = torch.zeros(case.count, len(case.hidden), dtype=torch.float64)
    for index in range(case.count):
        both = case.hidden.double() @ case.w12[index].double() + case.biases[0][index].double()
        inner = swiglu_oai(both, 1.702, 7.0).abs().amax(-1)
        for token, routes in enumerate(case.routing.tolist()):
            if case.first + index in routes:
                expected[index, token] = inner[token]
    if not per_token:
        expected = expected.amax(-1)
    torch.testing.assert_close(largest.cpu().double(), expected, rtol=1e-5, atol=1e-5)


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
