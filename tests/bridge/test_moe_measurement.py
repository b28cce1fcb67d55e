"""``mixture_of_experts`` that measures: the largest inner value of every expert."""

import pytest
import torch

from .expert_case import OPS, Case, gated, swiglu_oai


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
