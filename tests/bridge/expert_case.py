"""Experts for ``mixture_of_experts``, and what it computes in float64, one token at a time."""

import torch
from habana_frameworks.torch._ops.fp8_range import fp8_max

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
