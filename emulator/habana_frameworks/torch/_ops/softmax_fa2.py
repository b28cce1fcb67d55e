"""``hpu::softmax_fa2``: one step of a softmax over slices of the keys, with running statistics.

Schema: scripts/hpu_op.yaml of HabanaAI/gaudi-pytorch-bridge (newer public commit); mathematics and
the layout of the statistics: its tests.
"""

import math

import torch

from habana_frameworks.torch.utils.experimental import _get_device_type, synDeviceType

from .fp8_range import FP8_DTYPES, saturate
from .library import operator

__all__ = ["softmax_fa2"]

_PACK = 8
_VECTOR_BYTES = 256
_FP8_RANGE, _FP8_RANGE_EXPERIMENTAL = 240.0, 448.0


def _is_gaudi3() -> bool:
    return _get_device_type() == synDeviceType.synDeviceGaudi3


def _groups(rows: int, stored: torch.Tensor) -> tuple[int, int]:
    """How many vectors hold the statistics of ``rows``, and the elements of one vector."""
    lane = _VECTOR_BYTES // stored.dtype.itemsize
    groups = math.ceil(rows / _PACK)
    if stored.shape[-1] < groups * lane:
        raise ValueError(
            f"softmax_fa2: statistics of {rows} rows take {groups * lane} elements on Gaudi 3 "
            f"({_PACK} rows per vector of {lane}), got {stored.shape[-1]}"
        )
    return groups, lane


def _unpack(stored: torch.Tensor, rows: int) -> torch.Tensor:
    """``[..., rows]`` of statistics as the card keeps them, in float32."""
    if not _is_gaudi3():
        return stored.to(torch.float32)
    groups, lane = _groups(rows, stored)
    vectors = stored[..., : groups * lane].unflatten(-1, (groups, lane))
    return vectors[..., :_PACK].flatten(-2)[..., :rows].to(torch.float32)


def _pack(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The inverse; what lies between the packs is zero."""
    if not _is_gaudi3():
        return values.to(like.dtype)
    rows = values.shape[-1]
    groups, lane = _groups(rows, like)
    packs = torch.nn.functional.pad(values, (0, groups * _PACK - rows)).unflatten(-1, (-1, _PACK))
    flat = torch.nn.functional.pad(packs, (0, lane - _PACK)).flatten(-2)
    return torch.nn.functional.pad(flat, (0, like.shape[-1] - groups * lane)).to(like.dtype)


def _fake(input, *, descale=None, inputM, inputL, dim=-1, experimental_mode=False):
    return (
        torch.empty_like(input),
        torch.empty_like(inputM),
        torch.empty_like(inputL),
        torch.empty_like(inputL),
    )


@operator(
    "softmax_fa2(Tensor input, *, Tensor? descale=None, Tensor inputM, Tensor inputL, int dim=-1,"
    " bool experimental_mode=False) -> (Tensor, Tensor, Tensor, Tensor)",
    _fake,
)
def softmax_fa2(
    input: torch.Tensor,
    *,
    descale: torch.Tensor | None = None,
    inputM: torch.Tensor,
    inputL: torch.Tensor,
    dim: int = -1,
    experimental_mode: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """``exp(input - M)`` with the running maximum ``M``, and the statistics for the next slice.

    Args:
        input: scores ``[..., rows, keys]``; FP8 scores are multiplied with ``descale`` first.
        inputM, inputL: maximum and sum so far, -inf and 0 in the beginning. ``[..., rows]``; on
            Gaudi 3 eight rows lie at the start of each vector of 256 bytes, so the last dimension
            is ``ceil(rows / 8)`` times 128 (bfloat16) or 64 (float32).
        dim: the last one.
        experimental_mode: FP8 results up to 448 instead of 240; Gaudi 3 only.

    Returns:
        the weights, not yet divided by the sum (FP8 ones times the power of two that brings the
        largest to the end of the range), the new maximum, the new sum, and ``exp(old maximum -
        new maximum)``, the factor for what was accumulated before.
    """
    if dim not in (-1, input.dim() - 1):
        raise ValueError(f"softmax_fa2: only the last dimension is supported, got dim {dim}")
    if experimental_mode and not _is_gaudi3():
        raise RuntimeError("softmax_fa2: experimental mode is supported only on Gaudi3.")
    scores = input.to(torch.float32)
    if input.dtype in FP8_DTYPES and descale is not None:
        scores = scores * descale
    rows = input.shape[-2]
    before, total = _unpack(inputM, rows), _unpack(inputL, rows)
    highest = torch.maximum(before, scores.amax(-1))
    weights = torch.exp(scores - highest.unsqueeze(-1))
    fixup = torch.exp(before - highest)
    total = fixup * total + weights.sum(-1)
    if input.dtype in FP8_DTYPES:
        largest = weights.amax()
        limit = _FP8_RANGE_EXPERIMENTAL if experimental_mode else _FP8_RANGE
        factor = torch.exp2(torch.floor(torch.log2(limit / largest)))
        result = saturate(weights * torch.where(largest > 0, factor, 1.0), input.dtype)
    else:
        result = weights.to(input.dtype)
    return result, _pack(highest, inputM), _pack(total, inputL), _pack(fixup, inputL)
