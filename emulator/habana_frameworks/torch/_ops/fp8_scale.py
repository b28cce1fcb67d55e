"""Scales for FP8 casts from the values themselves.

``calculate_scale_for_cast`` and ``cast_to_fp8_just_in_time``; schemas and reference mathematics:
scripts/hpu_op.yaml, hpu_ops and the tests of HabanaAI/gaudi-pytorch-bridge (newer public commit).
"""

import enum

import torch

from .fp8_range import fp8_max, saturate
from .library import operator

__all__ = ["calculate_scale_for_cast", "cast_to_fp8_just_in_time"]


class _Max(enum.IntEnum):
    """Which values share one scale."""

    NONE = 0
    TENSOR = 1
    CHANNEL = 2


class _Rounding(enum.IntEnum):
    NONE = 0
    POWER_OF_TWO = 1


def _fake_scale(
    input, maxMode, scaleMode, reduceAxis=0, reduceKeepdim=False, fullscale=1.0, backoff=1.0
):
    shape = list(input.shape)
    if maxMode == _Max.TENSOR:
        shape = [1]
    elif maxMode == _Max.CHANNEL:
        shape[reduceAxis] = 1
        if not reduceKeepdim:
            del shape[reduceAxis]
    return input.new_empty(shape)


@operator(
    "calculate_scale_for_cast(Tensor input, int maxMode, int scaleMode, int reduceAxis=0,"
    " bool reduceKeepdim=False, float fullscale=1.0, float backoff=1.0) -> Tensor",
    _fake_scale,
)
def calculate_scale_for_cast(
    input: torch.Tensor,
    maxMode: int,
    scaleMode: int,
    reduceAxis: int = 0,
    reduceKeepdim: bool = False,
    fullscale: float = 1.0,
    backoff: float = 1.0,
) -> torch.Tensor:
    """``max(abs(input)) / (fullscale * backoff)``, the scale that multiplies after a cast.

    Args:
        maxMode: 0: ``input`` is a scale already and is not divided, 1: one for the tensor, 2: one
            for each slice along ``reduceAxis``.
        scaleMode: 0: as computed, 1: rounded up to a power of two.
        reduceKeepdim: with ``maxMode`` 2, keep the axis with size 1.

    Returns:
        the scales in the dtype of ``input``; ``[1]`` for ``maxMode`` 1.
    """
    if maxMode not in list(_Max) or scaleMode not in list(_Rounding):
        raise ValueError(
            "calculate_scale_for_cast: maxMode must be 0, 1 or 2 and scaleMode 0 or 1, got "
            f"{maxMode} and {scaleMode}"
        )
    values = input.to(torch.float32)
    if maxMode == _Max.TENSOR:
        values = values.abs().amax().reshape(1)
    elif maxMode == _Max.CHANNEL:
        values = values.abs().amax(dim=reduceAxis, keepdim=reduceKeepdim)
    if maxMode != _Max.NONE:
        values = values / (fullscale * backoff)
    if scaleMode == _Rounding.POWER_OF_TWO:
        values = torch.exp2(torch.ceil(torch.log2(values)))
    return values.to(input.dtype)


def _scale_shape(input: torch.Tensor, block_shape: list[int]) -> list[int]:
    height, width = block_shape
    if input.dim() < 2 or (height != 1 and width not in (1, height)):
        raise RuntimeError(
            "cast_to_fp8_just_in_time: the input needs two dimensions, and a block must be square "
            f"or one row or column; got {tuple(input.shape)} and blocks of {height} x {width}"
        )
    rows, columns = input.shape[-2:]
    if rows % height or columns % width:
        raise RuntimeError(
            f"cast_to_fp8_just_in_time: {rows} x {columns} is not a multiple of the block, "
            f"{height} x {width}"
        )
    return [*input.shape[:-2], rows // height, columns // width]


def _fake_just_in_time(input, block_shape, *, out_dtype=None, scale_dtype=None):
    return (
        torch.empty_like(input, dtype=out_dtype or torch.float8_e4m3fn),
        input.new_empty(_scale_shape(input, block_shape), dtype=scale_dtype or input.dtype),
    )


@operator(
    "cast_to_fp8_just_in_time(Tensor input, int[2] block_shape, *, ScalarType? out_dtype=None,"
    " ScalarType? scale_dtype=None) -> (Tensor, Tensor)",
    _fake_just_in_time,
)
def cast_to_fp8_just_in_time(
    input: torch.Tensor,
    block_shape: list[int],
    *,
    out_dtype: torch.dtype | None = None,
    scale_dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise with one scale per block: the block's largest magnitude becomes the card's range.

    Args:
        input: ``[..., rows, columns]``.
        block_shape: rows and columns of a block: square, or one of them 1.
        out_dtype: ``float8_e4m3fn`` (the default) or ``float8_e5m2``.
        scale_dtype: dtype of the scales, that of ``input`` by default.

    Returns:
        the FP8 tensor, and scales ``[..., rows / height, columns / width]`` that multiply it to
        get the values back; 1 for a block of zeros.

    Raises:
        RuntimeError: blocks that the card does not take, or that do not divide the input.
    """
    dtype = out_dtype or torch.float8_e4m3fn
    shape = _scale_shape(input, block_shape)
    blocks = input.to(torch.float32).reshape(
        *input.shape[:-2], shape[-2], block_shape[0], shape[-1], block_shape[1]
    )
    largest = blocks.abs().amax(dim=(-3, -1), keepdim=True)
    scale = torch.where(largest > 0, largest / fp8_max(dtype), 1.0)
    scale = scale.to(scale_dtype or input.dtype)
    values = saturate(blocks / scale.to(torch.float32), dtype).reshape(input.shape)
    return values, scale.reshape(shape)
