"""Older forms of FP8 operators, which write into given tensors."""

import torch

from .fp8 import cast_to_fp8_v2, fp8_gemm_v2
from .library import operator

__all__ = ["cast_to_fp8", "fp8_gemm"]


def _fake(A, trans_A, B, trans_B, D, out_dtype, A_scale_inv, B_scale_inv, bias, accumulate, out):
    return out


@operator(
    "fp8_gemm(Tensor A, bool trans_A, Tensor B, bool trans_B, Tensor D, ScalarType out_dtype,"
    " Tensor? A_scale_inv, Tensor? B_scale_inv, Tensor? bias, bool accumulate, Tensor(a!) out)"
    " -> Tensor(a!)",
    _fake,
)
def fp8_gemm(
    A: torch.Tensor,
    trans_A: bool,
    B: torch.Tensor,
    trans_B: bool,
    D: torch.Tensor,
    out_dtype: torch.dtype,
    A_scale_inv: torch.Tensor | None,
    B_scale_inv: torch.Tensor | None,
    bias: torch.Tensor | None,
    accumulate: bool,
    out: torch.Tensor,
) -> torch.Tensor:
    """:func:`.fp8.fp8_gemm_v2` into ``out``, which may be ``D``; ``bias`` broadcasts to it."""
    result = fp8_gemm_v2(
        A, trans_A, B, trans_B, D, out_dtype, A_scale_inv, B_scale_inv, bias, accumulate
    )
    return out.copy_(result)


def _fake_cast(input, scale, stochastic_rounding, out, amax):
    return out, amax


@operator(
    "cast_to_fp8(Tensor input, Tensor? scale, bool stochastic_rounding, Tensor(a!) out,"
    " Tensor(b!) amax) -> (Tensor(a!), Tensor(b!))",
    _fake_cast,
)
def cast_to_fp8(
    input: torch.Tensor,
    scale: torch.Tensor | None,
    stochastic_rounding: bool,
    out: torch.Tensor,
    amax: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`.fp8.cast_to_fp8_v2` to the type of ``out``, and the greatest absolute value."""
    cast, greatest = cast_to_fp8_v2(input, scale, stochastic_rounding, True, out.dtype)
    return out.copy_(cast), amax.copy_(greatest)
