"""``mixture_of_experts`` with FP8 weights that have one scale per block, in float64."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .expert_case import E4M3, OPS, Case, gated, near


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
