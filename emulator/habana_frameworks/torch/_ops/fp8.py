"""FP8 casts and the FP8 matrix product: ``cast_to_fp8_v2``, ``cast_from_fp8``, ``fp8_gemm_v2``.

Schemas: habana_eager/eager_custom_op_register.cpp of HabanaAI/gaudi-pytorch-bridge. Each operator
has three overloads: scale as a tensor, as one float (``scalar``), as a list (``scalar_list``).
"""

from typing import TypeAlias, TypeGuard

import torch

from .fp8_range import FP8_DTYPES, round_stochastically, saturate
from .library import operator

__all__ = ["cast_from_fp8", "cast_to_fp8_hybrid", "cast_to_fp8_v2", "fp8_gemm_v2"]

Scale: TypeAlias = torch.Tensor | float | list[float] | None


def _factor(scale: Scale, shape: list[int] | None, like: torch.Tensor) -> torch.Tensor | float:
    """A scale in the form that multiplies ``like``; 1.0 for none."""
    if scale is None:
        return 1.0
    if isinstance(scale, float | int):
        return float(scale)
    if isinstance(scale, list | tuple):
        if len(scale) == 1:
            return float(scale[0])
        factor = torch.tensor(scale, dtype=torch.float32).to(like.device)
    else:
        factor = scale
    return factor.reshape(shape) if shape is not None else factor


def _scaled(values: torch.Tensor, factor: torch.Tensor | float, dtype: torch.dtype) -> torch.Tensor:
    """The product in ``dtype``: the card multiplies in the wider of its two types, not beyond."""
    wide = values.to(dtype)
    if isinstance(factor, torch.Tensor):
        return wide * factor.to(dtype)
    # A number is rounded to the type as a scale in memory is.
    return wide if factor == 1.0 else wide * torch.tensor(factor, dtype=dtype).item()


def _fake_to(
    input, scale=None, stochastic_rounding=False, is_amax=False, dtype=None, scale_shape=None
):
    amax = input.new_empty([] if is_amax else [0], dtype=torch.float32)
    return torch.empty_like(input, dtype=dtype or torch.float8_e5m2), amax


_TO_TAIL = (
    "bool stochastic_rounding=False, bool is_amax=False, ScalarType? dtype=None,"
    " int[]? scale_shape=None) -> (Tensor, Tensor)"
)


@operator(f"cast_to_fp8_v2.scalar_list(Tensor input, float[] scale, {_TO_TAIL}", _fake_to)
@operator(f"cast_to_fp8_v2.scalar(Tensor input, float scale, {_TO_TAIL}", _fake_to)
@operator(f"cast_to_fp8_v2(Tensor input, Tensor? scale=None, {_TO_TAIL}", _fake_to)
def cast_to_fp8_v2(
    input: torch.Tensor,
    scale: Scale = None,
    stochastic_rounding: bool = False,
    is_amax: bool = False,
    dtype: torch.dtype | None = None,
    scale_shape: list[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise: ``saturate(input * scale)`` in ``dtype``; the product is in ``input``'s dtype.

    Args:
        input: floating tensor of any shape.
        scale: multiplies ``input``; a tensor broadcasts (after ``reshape(scale_shape)``).
        stochastic_rounding: round up or down with the probability of the distance.
        is_amax: also return the largest magnitude of ``input``.
        dtype: ``float8_e4m3fn`` or ``float8_e5m2`` (the default, as in Intel's bridge).

    Returns:
        the FP8 tensor, and the amax as float32 scalar (an empty tensor without ``is_amax``).
    """
    target = dtype or torch.float8_e5m2
    if input.dtype in FP8_DTYPES:
        if is_amax:
            raise RuntimeError("CastToFp8V2 must have no amax for float8.")
        if input.dtype != target:
            names = (str(t).replace("torch.f", "F") for t in (input.dtype, target))
            raise RuntimeError(
                "CastToFp8V2 input and output must have the same dtype for float8, but are "
                + " and ".join(names)
            )
    dtype_of_product = torch.float32 if input.dtype in FP8_DTYPES else input.dtype
    values = _scaled(input, _factor(scale, scale_shape, input), dtype_of_product)
    if is_amax:
        amax = input.abs().amax().to(torch.float32)
    else:
        amax = torch.empty(0, dtype=torch.float32, device=input.device)
    if stochastic_rounding:
        values = round_stochastically(values.to(torch.float32), target)
    return saturate(values, target), amax


def _fake_hybrid(input, scale_152=None, scale_143=None, stochastic_rounding=False, is_amax=False):
    first, amax = _fake_to(input, is_amax=is_amax)
    return first, torch.empty_like(input, dtype=torch.float8_e4m3fn), amax


@operator(
    "cast_to_fp8_hybrid(Tensor input, Tensor? scale_152=None, Tensor? scale_143=None,"
    " bool stochastic_rounding=False, bool is_amax=False) -> (Tensor, Tensor, Tensor)",
    _fake_hybrid,
)
def cast_to_fp8_hybrid(
    input: torch.Tensor,
    scale_152: torch.Tensor | None = None,
    scale_143: torch.Tensor | None = None,
    stochastic_rounding: bool = False,
    is_amax: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """:func:`cast_to_fp8_v2` to ``float8_e5m2`` and to ``float8_e4m3fn``, and one amax.

    Only the first is rounded stochastically, as the bridge's own tests expect.
    """
    wide, amax = cast_to_fp8_v2(input, scale_152, stochastic_rounding, is_amax, torch.float8_e5m2)
    exact, _ = cast_to_fp8_v2(input, scale_143, False, False, torch.float8_e4m3fn)
    return wide, exact, amax


def _fake_from(input, scale, out_dtype, scale_shape=None):
    return torch.empty_like(input, dtype=out_dtype)


_FROM_TAIL = "ScalarType out_dtype, int[]? scale_shape=None) -> Tensor"


@operator(f"cast_from_fp8.scalar_list(Tensor input, float[] scale, {_FROM_TAIL}", _fake_from)
@operator(f"cast_from_fp8.scalar(Tensor input, float scale, {_FROM_TAIL}", _fake_from)
@operator(f"cast_from_fp8(Tensor input, Tensor? scale, {_FROM_TAIL}", _fake_from)
def cast_from_fp8(
    input: torch.Tensor,
    scale: Scale,
    out_dtype: torch.dtype,
    scale_shape: list[int] | None = None,
) -> torch.Tensor:
    """Dequantise: ``input * scale``, both in ``out_dtype``; arguments of cast_to_fp8_v2."""
    return _scaled(input, _factor(scale, scale_shape, input), out_dtype)


def _fake_gemm(
    A,
    trans_A,
    B,
    trans_B,
    D,
    out_dtype,
    A_scale_inv=None,
    B_scale_inv=None,
    bias=None,
    accumulate=False,
    B_scale_shape=None,
):
    left = A.transpose(-1, -2) if trans_A else A
    right = B.transpose(-1, -2) if trans_B else B
    return A.new_empty([*left.shape[:-1], right.shape[-1]], dtype=out_dtype)


def _rows(factor: torch.Tensor | float, rows: int) -> torch.Tensor | float:
    """A scale per row of the left operand, as a column; a scale of one value unchanged."""
    if isinstance(factor, torch.Tensor) and factor.dim() == 1 and factor.numel() == rows > 1:
        return factor.unsqueeze(-1)
    return factor


def _columns(factor: torch.Tensor | float, columns: int) -> torch.Tensor | float:
    """A scale per output channel, as a row; it may come as ``[n]``, ``[n, 1]`` or ``[1, n]``."""
    if isinstance(factor, torch.Tensor) and factor.dim() == 2 and factor.numel() == columns:
        return factor.reshape(columns)
    return factor


def _is_blockwise(factor: torch.Tensor | float) -> TypeGuard[torch.Tensor]:
    """Whether a scale of the left operand differs along the dimension that is summed over."""
    return isinstance(factor, torch.Tensor) and factor.dim() >= 2 and factor.shape[-1] > 1


def _spread(factor: torch.Tensor | float, like: torch.Tensor) -> torch.Tensor | float:
    """One scale per block repeated to the shape of ``like``."""
    if not isinstance(factor, torch.Tensor) or factor.numel() == 1:
        return factor
    for dim in (-2, -1):
        if like.shape[dim] % factor.shape[dim]:
            raise ValueError(
                f"fp8_gemm_v2: {tuple(factor.shape)} scales do not divide {tuple(like.shape)}"
            )
        factor = factor.repeat_interleave(like.shape[dim] // factor.shape[dim], dim=dim)
    return factor


def _scaled_sum(
    sums: torch.Tensor,
    row: torch.Tensor | float,
    column: torch.Tensor | float,
    dtype: torch.dtype,
) -> torch.Tensor:
    """A float32 sum of products times the scales of its rows and columns.

    A bfloat16 result is rounded twice: the sum, then its product with the rounded product of the
    scales. Two recorded sets of outputs say so (emulator/docs/rounding.md); for other types there
    is no witness, and the result stays in float32.
    """
    scale = row * column
    if isinstance(scale, float):
        if scale == 1.0:
            return sums
        scale = torch.tensor(scale, dtype=torch.float32)
        scale = (scale.to(dtype) if dtype == torch.bfloat16 else scale).item()
    elif dtype == torch.bfloat16:
        scale = scale.to(dtype)
    return sums.to(dtype) * scale if dtype == torch.bfloat16 else sums.mul_(scale)


_GEMM_HEAD = "Tensor A, bool trans_A, Tensor B, bool trans_B, Tensor? D, ScalarType out_dtype"
_GEMM_TAIL = "Tensor? bias=None, bool accumulate=False, int[]? B_scale_shape=None) -> Tensor"


@operator(
    f"fp8_gemm_v2.scalar_list({_GEMM_HEAD}, float[] A_scale_inv, float[] B_scale_inv, {_GEMM_TAIL}",
    _fake_gemm,
)
@operator(
    f"fp8_gemm_v2.scalar({_GEMM_HEAD}, float A_scale_inv, float B_scale_inv, {_GEMM_TAIL}",
    _fake_gemm,
)
@operator(
    f"fp8_gemm_v2({_GEMM_HEAD}, Tensor? A_scale_inv=None, Tensor? B_scale_inv=None, {_GEMM_TAIL}",
    _fake_gemm,
)
def fp8_gemm_v2(
    A: torch.Tensor,
    trans_A: bool,
    B: torch.Tensor,
    trans_B: bool,
    D: torch.Tensor | None,
    out_dtype: torch.dtype,
    A_scale_inv: Scale = None,
    B_scale_inv: Scale = None,
    bias: torch.Tensor | None = None,
    accumulate: bool = False,
    B_scale_shape: list[int] | None = None,
) -> torch.Tensor:
    """``(op(A) * A_scale_inv) @ (op(B) * B_scale_inv) + bias``, plus ``D`` with ``accumulate``.

    Args:
        A: FP8 ``[..., m, k]``, or ``[..., k, m]`` with ``trans_A``.
        B: FP8 ``[..., k, n]``, or ``[..., n, k]`` with ``trans_B``.
        A_scale_inv: one value, or one per row (``[m]`` or ``[..., m, 1]``), or one per block of
            rows and columns (``[..., m / x, k / y]``), then those of B are ``[k / y, n / z]``.
        B_scale_inv: one value, or one per output channel (``[n]``, ``[n, 1]`` or ``[1, n]``).
        bias: ``[n]``.

    Returns:
        ``[..., m, n]`` in ``out_dtype``; products are summed in float32, and scaled by
        :func:`_scaled_sum`.
    """
    left = (A.transpose(-1, -2) if trans_A else A).to(torch.float32)
    right = (B.transpose(-1, -2) if trans_B else B).to(torch.float32)
    left_scale = _factor(A_scale_inv, None, A)
    right_scale = _factor(B_scale_inv, B_scale_shape, B)
    if _is_blockwise(left_scale):
        left, left_scale = left * _spread(left_scale, left), 1.0
        right, right_scale = right * _spread(right_scale, right), 1.0
    out = torch.matmul(left, right)
    out = _scaled_sum(
        out,
        _rows(left_scale, out.shape[-2] if out.dim() > 1 else 1),
        _columns(right_scale, out.shape[-1] if out.dim() > 0 else 1),
        out_dtype,
    )
    if bias is not None:
        out = out + bias.to(torch.float32)
    if accumulate:
        if D is None:
            raise ValueError("fp8_gemm_v2: accumulate=True needs the tensor D to add to")
        out = out + D.to(torch.float32)
    return out.to(out_dtype)
