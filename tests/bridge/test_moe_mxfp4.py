"""``mixture_of_experts`` with MXFP4 weights, which only compiled graphs have, in float64."""

import math

import pytest
import torch

from .expert_case import OPS, Case, gated, near, swiglu_oai

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
