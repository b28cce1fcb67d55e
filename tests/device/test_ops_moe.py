"""``torch.ops.hpu.mixture_of_experts`` against a float64 loop over tokens and experts."""

import pytest
import torch
from habana_frameworks.torch._device import DeviceGraph
from hypothesis import given, settings
from hypothesis import strategies as st

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 6e-2, torch.float16: 6e-3}
ACTIVATIONS = {
    "silu": lambda x: x * torch.sigmoid(x),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
    "relu": lambda x: x.clamp(min=0),
}


def exact(hidden, routing, weights, expert, first, count):
    """``expert(index, x)`` maps one float64 token; experts outside the range add nothing."""
    out = torch.zeros(hidden.shape, dtype=torch.float64)
    for token in range(hidden.shape[0]):
        for slot in range(routing.shape[1]):
            index = int(routing[token, slot]) - first
            if 0 <= index < count:
                out[token] += weights[token, slot].double() * expert(index, hidden[token].double())
    return out


class Case:
    """Random tokens, routes and experts; weights are small so that sums stay near one."""

    def __init__(self, seed, dtype, tokens, hidden, ffn, total, per_token, first, last):
        g = torch.Generator().manual_seed(seed)
        self.dtype, self.first, self.count = dtype, first, last - first + 1
        self.hidden = torch.randn(tokens, hidden, generator=g).to(dtype)
        self.routing = (
            torch.stack([torch.randperm(total, generator=g)[:per_token] for _ in range(tokens)])
            if tokens
            else torch.zeros(0, per_token, dtype=torch.int64)
        )
        self.weights = torch.rand(tokens, per_token, generator=g).to(dtype)

        def make(rows, columns):
            scale = rows**-0.5
            return [
                torch.randn(rows, columns, generator=g).mul(scale).to(dtype)
                for _ in range(self.count)
            ]

        self.gate, self.up, self.down = make(hidden, ffn), make(hidden, ffn), make(ffn, hidden)
        self.both_bias = [t[0] for t in make(2 * ffn, 2 * ffn)]
        self.down_bias = [t[0] for t in make(hidden, hidden)]

    def gated(self, activation):
        def expert(i, x):
            gate, up = x @ self.gate[i].double(), x @ self.up[i].double()
            return (ACTIVATIONS[activation](gate) * up) @ self.down[i].double()

        return exact(self.hidden, self.routing, self.weights, expert, self.first, self.count)

    def check(self, actual, expected):
        assert actual.dtype == self.dtype
        assert actual.device.type == "hpu"
        tolerance = TOLERANCE[self.dtype]
        torch.testing.assert_close(actual.cpu().double(), expected, rtol=tolerance, atol=tolerance)


def device(tensors):
    return [t.to("hpu") for t in tensors]


def layout(tensors, permuted):
    return device([t.T.contiguous() if permuted else t for t in tensors])


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(TOLERANCE, key=str)),
    st.integers(0, 12),
    st.integers(1, 24),
    st.integers(1, 16),
    st.integers(2, 9),
    st.data(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.sampled_from([torch.int32, torch.int64]),
)
def test_gated_experts(
    dtype, tokens, hidden, ffn, total, data, permuted, fused, activation, id_dtype
):
    per_token = data.draw(st.integers(1, total))
    first = data.draw(st.integers(0, total - 1))
    last = data.draw(st.integers(first, total - 1))
    case = Case(
        data.draw(st.integers(0, 2**31)), dtype, tokens, hidden, ffn, total, per_token, first, last
    )
    common = device([case.hidden, case.routing.to(id_dtype), case.weights])
    if fused:
        both = [torch.cat(pair, dim=1) for pair in zip(case.gate, case.up, strict=True)]
        out = torch.ops.hpu.mixture_of_experts.fused_weights(
            *common,
            layout(both, permuted),
            layout(case.down, permuted),
            permuted,
            activation,
            first,
            last,
            chunk_size=64,
            total_experts=total,
        )
    else:
        out = torch.ops.hpu.mixture_of_experts(
            *common,
            layout(case.gate, permuted),
            layout(case.up, permuted),
            layout(case.down, permuted),
            permuted,
            activation,
            first,
            last,
        )
    case.check(out, case.gated(activation))


@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gpt_oss_experts(dtype, permuted):
    case = Case(1, dtype, 9, 16, 12, 6, 3, 1, 4)
    alpha, limit = 1.702, 0.7
    both = [torch.stack(pair, dim=-1).flatten(-2) for pair in zip(case.gate, case.up, strict=True)]

    def expert(i, x):
        values = x @ both[i].double() + case.both_bias[i].double()
        gate, up = values[::2].clamp(max=limit), values[1::2].clamp(-limit, limit)
        inner = (up + 1) * gate * torch.sigmoid(alpha * gate)
        return inner @ case.down[i].double() + case.down_bias[i].double()

    out = torch.ops.hpu.mixture_of_experts.bias_fused_weights(
        *device([case.hidden, case.routing, case.weights]),
        layout(both, permuted),
        layout(case.down, permuted),
        device(case.both_bias),
        device(case.down_bias),
        permuted_weights=permuted,
        experts_min=1,
        experts_max=4,
        alpha=alpha,
        limit=limit,
    )
    case.check(out, exact(case.hidden, case.routing, case.weights, expert, 1, 4))


def test_slices_of_experts_add_up():
    """Two calls with half the experts each give the sum of one call with all: ranks of EP."""
    case = Case(4, torch.float32, 10, 16, 8, 8, 2, 0, 7)
    common = device([case.hidden, case.routing, case.weights])
    parts = [
        torch.ops.hpu.mixture_of_experts(
            *common,
            device(case.gate[s]),
            device(case.up[s]),
            device(case.down[s]),
            False,
            "silu",
            s.start,
            s.stop - 1,
        )
        for s in (slice(0, 3), slice(3, 8))
    ]
    case.check(parts[0] + parts[1], case.gated("silu"))


def test_a_captured_graph_follows_new_routes():
    """The shapes are static: one graph serves every routing, read when it runs."""
    case, other = (Case(seed, torch.float32, 8, 16, 8, 6, 2, 0, 5) for seed in (5, 6))
    static = device([case.hidden, case.routing, case.weights])
    experts = [device(w) for w in (case.gate, case.up, case.down)]
    graph = DeviceGraph()
    graph.capture_begin()
    out = torch.ops.hpu.mixture_of_experts(*static, *experts, False, "silu", 0, 5)
    graph.capture_end()
    case.check(out, case.gated("silu"))
    other.gate, other.up, other.down = case.gate, case.up, case.down
    for target, source in zip(static, (other.hidden, other.routing, other.weights), strict=True):
        target.copy_(source)
    graph.replay()
    case.check(out, other.gated("silu"))
    assert [name for name in graph.operators() if "expert" in name], "not one launch of its own"


def test_wrong_arguments_are_refused():
    case = Case(0, torch.float32, 4, 8, 4, 4, 2, 0, 3)
    common = device([case.hidden, case.routing, case.weights])
    experts = [device(w) for w in (case.gate, case.up, case.down)]
    op = torch.ops.hpu.mixture_of_experts
    with pytest.raises(ValueError, match=r"experts 0..2 \(inclusive\) are 3"):
        op(*common, *experts, False, "silu", 0, 2)
    with pytest.raises(ValueError, match="activation 'tanh'"):
        op(*common, *experts, False, "tanh", 0, 3)
    with pytest.raises(ValueError, match=r"\[tokens, k\]"):
        op(common[0], common[1][:, :1], common[2], *experts, False, "silu", 0, 3)


def test_an_overload_that_is_not_provided_names_itself():
    with pytest.raises(AttributeError, match="int3"):
        _ = torch.ops.hpu.mixture_of_experts.int3
