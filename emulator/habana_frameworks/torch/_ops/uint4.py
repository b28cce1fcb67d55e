"""``hpu::convert_from_uint4`` and ``convert_from_int4``: unpack 4-bit weights.

Schema: habana_eager/eager_custom_op_register.cpp of HabanaAI/gaudi-pytorch-bridge (newer public
commit): eight nibbles per int32 along the last dimension, the lowest nibble first.
"""

import torch

from .fp8_range import FP8_DTYPES, saturate
from .library import operator

__all__ = ["convert_from_int4", "convert_from_uint4"]

_PER_WORD = 8


def _unpack(words: torch.Tensor, signed: bool) -> torch.Tensor:
    """int32 ``[..., n]`` to int32 ``[..., 8 n]`` with values 0..15, or -8..7 if ``signed``."""
    shifts = torch.arange(0, 4 * _PER_WORD, 4, dtype=torch.int32, device=words.device)
    nibbles = words.unsqueeze(-1).bitwise_right_shift(shifts).bitwise_and_(15)
    if signed:
        nibbles = nibbles - (nibbles > 7).to(torch.int32) * 16
    return nibbles.flatten(-2)


def _per_row(values: torch.Tensor, rows: int, group_index: torch.Tensor | None) -> torch.Tensor:
    """Expand one row per group to one row per weight row; single values broadcast."""
    if values.dim() < 2 or values.shape[0] == 1:
        return values
    if group_index is not None:
        return values.index_select(0, group_index.to(torch.int64))
    if values.shape[0] == rows:
        return values
    if rows % values.shape[0]:
        raise ValueError(
            f"convert_from_uint4: {rows} weight rows cannot be split into {values.shape[0]} "
            "groups; give scales whose first dimension divides the rows, or a group_index"
        )
    return values.repeat_interleave(rows // values.shape[0], dim=0)


def _fake(input, scale, zero_point, out_dtype, group_index=None, *, disable_fp8_clipping=False):
    return input.new_empty([*input.shape[:-1], input.shape[-1] * _PER_WORD], dtype=out_dtype)


def _convert(
    input: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    out_dtype: torch.dtype,
    group_index: torch.Tensor | None,
    disable_fp8_clipping: bool,
    signed: bool,
) -> torch.Tensor:
    if input.dtype != torch.int32:
        raise ValueError(f"convert_from_(u)int4: input must be int32 words, got {input.dtype}")
    rows = input.shape[0]
    values = _unpack(input, signed).to(torch.float32)
    if zero_point is not None:
        packed = zero_point.dtype == torch.int32 and zero_point.shape[-1] == input.shape[-1]
        zeros = _unpack(zero_point, signed) if packed else zero_point
        values = values - _per_row(zeros, rows, group_index).to(torch.float32)
        if out_dtype not in FP8_DTYPES:
            # The card subtracts in the dtype of the result, and rounds there.
            values = values.to(out_dtype).to(torch.float32)
    values = values * _per_row(scale, rows, group_index).to(torch.float32)
    if out_dtype in FP8_DTYPES and not disable_fp8_clipping:
        return saturate(values, out_dtype)
    return values.to(out_dtype)


@operator(
    "convert_from_uint4(Tensor input, Tensor scale, Tensor? zero_point, ScalarType out_dtype,"
    " Tensor? group_index=None, *, bool disable_fp8_clipping=False) -> Tensor",
    _fake,
)
def convert_from_uint4(
    input: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    out_dtype: torch.dtype,
    group_index: torch.Tensor | None = None,
    *,
    disable_fp8_clipping: bool = False,
) -> torch.Tensor:
    """Unpack and scale: ``(nibble - zero_point) * scale`` with one scale row per group of rows.

    Args:
        input: int32 ``[rows, columns / 8]``.
        scale: ``[groups, columns]``, or one value.
        zero_point: int32 ``[groups, columns / 8]`` packed like ``input``, or
            ``[groups, columns]`` plain, or None for zero.
        out_dtype: dtype of the result.
        group_index: int ``[rows]``, the group of each row (activation order); None: equal,
            consecutive groups.
        disable_fp8_clipping: do not saturate an FP8 result to the card's range.

    Returns:
        ``[rows, columns]`` in ``out_dtype``.
    """
    return _convert(input, scale, zero_point, out_dtype, group_index, disable_fp8_clipping, False)


@operator(
    "convert_from_int4(Tensor input, Tensor scale, Tensor? zero_point, ScalarType out_dtype,"
    " Tensor? group_index=None, *, bool disable_fp8_clipping=False) -> Tensor",
    _fake,
)
def convert_from_int4(
    input: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    out_dtype: torch.dtype,
    group_index: torch.Tensor | None = None,
    *,
    disable_fp8_clipping: bool = False,
) -> torch.Tensor:
    """As :func:`convert_from_uint4`, with nibbles in two's complement: -8..7."""
    return _convert(input, scale, zero_point, out_dtype, group_index, disable_fp8_clipping, True)
