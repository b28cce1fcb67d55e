"""``hpu::block_softmax`` and its variants with one constant maximum: softmax over cache blocks.

Paged attention computes scores per block of the cache. ``block_softmax`` takes the exponential
within each block; block_softmax_adjustment.py gives the factor that turns block-local weights into
those of the whole sequence. With a maximum that is known beforehand one operator does both.
Schemas and reference mathematics: scripts/hpu_op.yaml and the tests of HabanaAI/
gaudi-pytorch-bridge (newer public commit).
"""

import math

import torch

from habana_frameworks.torch.utils.experimental import _get_device_type, synDeviceType

from .fp8_range import FP8_DTYPES, saturate
from .library import operator

__all__ = ["block_softmax", "block_softmax_const_max", "finish", "padded"]

_VECTOR_BYTES = 256
"""Width of a Gaudi 3's vector registers: it pads statistics to a multiple of it."""


def padded(count: int, dtype: torch.dtype) -> int:
    """How many statistics of ``dtype`` the card stores for ``count`` rows of a block."""
    if _get_device_type() != synDeviceType.synDeviceGaudi3:
        return count
    lane = _VECTOR_BYTES // dtype.itemsize
    return math.ceil(count / lane) * lane


def finish(values: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """Scale and cast a float32 result; FP8 results saturate to the card's range."""
    if scale != 1.0:
        values = values * scale
    return saturate(values, dtype) if dtype in FP8_DTYPES else values.to(dtype)


def _fake_softmax(
    attn, block_bias, block_ind, *, output_scale=1.0, output_dtype=None, fp8_exp=False
):
    shape = [attn.shape[0], padded(math.prod(attn.shape[1:-1]), attn.dtype)]
    result = torch.empty_like(attn, dtype=output_dtype or attn.dtype)
    return result, attn.new_empty(shape), attn.new_empty(shape)


@operator(
    "block_softmax(Tensor attn, Tensor block_bias, Tensor block_ind, *, float output_scale=1.0,"
    " ScalarType? output_dtype=None, bool fp8_exp=False) -> (Tensor, Tensor, Tensor)",
    _fake_softmax,
)
def block_softmax(
    attn: torch.Tensor,
    block_bias: torch.Tensor,
    block_ind: torch.Tensor,
    *,
    output_scale: float = 1.0,
    output_dtype: torch.dtype | None = None,
    fp8_exp: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``exp(attn + bias - max)`` within each block.

    Args:
        attn: scores ``[blocks, kv_heads, group, tokens, block_size]``.
        block_bias: additive, ``[blocks, block_size]`` or broadcastable to ``attn``.
        block_ind: int ``[blocks]``, the sequence that owns each block; -1 marks padding, whose
            weights, maximum and sum are zero.
        output_scale, output_dtype: scale and dtype of the weights.
        fp8_exp: the card looks up the exponential in a table of FP8 values; here it is rounded to
            FP8. Only with an FP8 ``output_dtype`` and without ``output_scale``.

    Returns:
        the weights in the shape of ``attn``; the block maxima and the block sums, both flattened
        to ``[blocks, >= kv_heads * group * tokens]`` in the dtype of ``attn`` and padded with
        zeros to full vectors, as the card returns them.
    """
    if fp8_exp and (output_scale != 1.0 or output_dtype not in FP8_DTYPES):
        raise ValueError(
            "block_softmax: fp8_exp needs an FP8 output_dtype and output_scale 1.0, got "
            f"{output_dtype} and {output_scale}"
        )
    if attn.dim() != 5:
        raise ValueError(f"block_softmax takes 5 dimensions, got {tuple(attn.shape)}")
    if block_bias.dim() == 2:
        block_bias = block_bias.reshape(attn.shape[0], 1, 1, 1, -1)
    owned = (block_ind != -1).reshape(-1, 1, 1, 1, 1)
    scores = attn.to(torch.float32) + block_bias
    highest = scores.amax(-1, keepdim=True)
    # A block whose every position is masked has a maximum of -inf: its weights must be 0, not NaN.
    highest = highest.masked_fill(highest == float("-inf"), 0.0)
    weights = (scores - highest).exp_().mul_(owned)
    sums = weights.sum(-1, keepdim=True)
    count = math.prod(attn.shape[1:-1])
    missing = padded(count, attn.dtype) - count

    def flatten(values: torch.Tensor) -> torch.Tensor:
        flat = values.reshape(attn.shape[0], count).to(attn.dtype)
        return torch.nn.functional.pad(flat, (0, missing))

    result = finish(weights, output_scale, output_dtype or attn.dtype)
    return result, flatten(highest * owned), flatten(sums)


def _fake_const_max(
    attn,
    block_bias,
    block_groups,
    batch_size,
    global_block_max,
    *,
    output_scale=1.0,
    output_dtype=None,
):
    return torch.empty_like(attn, dtype=output_dtype or attn.dtype)


_CONST_MAX = (
    "(Tensor attn, Tensor block_bias, Tensor block_groups, int batch_size, float global_block_max,"
    " *, float output_scale=1.0, ScalarType? output_dtype=None) -> Tensor"
)


@operator(f"block_softmax_const_max_not_staged{_CONST_MAX}", _fake_const_max)
@operator(f"block_softmax_const_max{_CONST_MAX}", _fake_const_max)
def block_softmax_const_max(
    attn: torch.Tensor,
    block_bias: torch.Tensor,
    block_groups: torch.Tensor,
    batch_size: int,
    global_block_max: float,
    *,
    output_scale: float = 1.0,
    output_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """``exp(attn + bias - global_block_max)`` over the sum of it in all blocks of the sequence.

    Args:
        attn, block_bias: as of :func:`block_softmax`.
        block_groups: int ``[blocks]``, owner of each block in ``0..batch_size-1``, -1: none.
        global_block_max: taken from every score; a number near the largest score.
        output_scale: multiplies an FP8 result.

    Returns:
        the weights in the shape of ``attn``; zero for blocks without an owner.
    """
    if attn.dim() != 5:
        raise ValueError(f"block_softmax_const_max takes 5 dimensions, got {tuple(attn.shape)}")
    if block_bias.dim() == 2:
        block_bias = block_bias.reshape(attn.shape[0], 1, 1, 1, -1)
    owned = (block_groups >= 0).reshape(-1, 1, 1, 1, 1)
    weights = (attn.to(torch.float32) + block_bias - global_block_max).exp_().mul_(owned)
    sums = weights.sum(-1, keepdim=True)
    owners = torch.where(block_groups < 0, batch_size, block_groups).to(torch.int64)
    totals = torch.zeros((batch_size + 1, *sums.shape[1:]), device=attn.device)
    denominator = totals.index_add_(0, owners, sums).index_select(0, owners)
    dtype = output_dtype or attn.dtype
    weights = weights / (denominator + torch.finfo(attn.dtype).tiny)
    return finish(weights, output_scale if dtype in FP8_DTYPES else 1.0, dtype)
