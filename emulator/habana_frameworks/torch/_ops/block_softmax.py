"""``hpu::block_softmax`` and ``hpu::block_softmax_adjustment``: softmax over cache blocks.

Paged attention computes scores per block of the cache. The first operator takes the exponential
within each block; the second gives the factor that turns block-local weights into those of the
whole sequence. Schemas and reference mathematics: scripts/hpu_op.yaml and the tests of
HabanaAI/gaudi-pytorch-bridge (newer public commit).
"""

import math

import torch

from .fp8_range import FP8_DTYPES, saturate
from .library import operator

__all__ = ["block_softmax", "block_softmax_adjustment"]

_VECTOR_BYTES = 256
"""Width of the card's vector registers: statistics are padded to a multiple of it."""


def _padded(count: int, dtype: torch.dtype) -> int:
    lane = _VECTOR_BYTES // dtype.itemsize
    return math.ceil(count / lane) * lane


def _finish(values: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """Scale and cast a float32 result; FP8 results saturate to the card's range."""
    if scale != 1.0:
        values = values * scale
    return saturate(values, dtype) if dtype in FP8_DTYPES else values.to(dtype)


def _fake_softmax(
    attn, block_bias, block_ind, *, output_scale=1.0, output_dtype=None, fp8_exp=False
):
    shape = [attn.shape[0], _padded(math.prod(attn.shape[1:-1]), attn.dtype)]
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
        fp8_exp: take the exponential in FP8; refused.

    Returns:
        the weights in the shape of ``attn``; the block maxima and the block sums, both flattened
        to ``[blocks, >= kv_heads * group * tokens]`` in the dtype of ``attn`` and padded with
        zeros to full vectors, as the card returns them.
    """
    if fp8_exp:
        raise NotImplementedError(
            "block_softmax: fp8_exp is not provided by the emulated bridge; pass False"
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
    missing = _padded(count, attn.dtype) - count

    def flatten(values: torch.Tensor) -> torch.Tensor:
        flat = values.reshape(attn.shape[0], count).to(attn.dtype)
        return torch.nn.functional.pad(flat, (0, missing))

    result = _finish(weights, output_scale, output_dtype or attn.dtype)
    return result, flatten(highest * owned), flatten(sums)


def _fake_adjustment(
    block_maxes,
    block_sums,
    block_groups,
    batch_size,
    out_shape=None,
    *,
    attn_fused_mult=None,
    output_scale=1.0,
    output_dtype=None,
    is_staged=False,
):
    shape = list(out_shape) if out_shape is not None else list(block_maxes.shape)
    if attn_fused_mult is not None:
        shape = list(torch.broadcast_shapes(tuple(shape), attn_fused_mult.shape))
    return block_maxes.new_empty(shape, dtype=output_dtype or block_maxes.dtype)


@operator(
    "block_softmax_adjustment(Tensor block_maxes, Tensor block_sums, Tensor block_groups,"
    " int batch_size, int[]? out_shape=None, *, Tensor? attn_fused_mult=None,"
    " float output_scale=1.0, ScalarType? output_dtype=None, bool is_staged=False) -> Tensor",
    _fake_adjustment,
)
def block_softmax_adjustment(
    block_maxes: torch.Tensor,
    block_sums: torch.Tensor,
    block_groups: torch.Tensor,
    batch_size: int,
    out_shape: list[int] | None = None,
    *,
    attn_fused_mult: torch.Tensor | None = None,
    output_scale: float = 1.0,
    output_dtype: torch.dtype | None = None,
    is_staged: bool = False,
) -> torch.Tensor:
    """``exp(m_b - M_g) / S_g``: what block ``b`` of sequence ``g`` weighs in the whole.

    ``M_g`` is the largest block maximum of the sequence, ``S_g`` the sum of its block sums after
    each is rescaled to ``M_g``.

    Args:
        block_maxes, block_sums: ``[blocks, ...]`` (5-D), or flattened as
            :func:`block_softmax` returns them.
        block_groups: int ``[blocks]``, owner of each block in ``0..batch_size-1``, -1: none.
        batch_size: number of sequences.
        out_shape: shape of the result; required unless the maxima have 5 dimensions.
        attn_fused_mult: multiplied into the result.
        is_staged: continue from ``block_softmax_staged_sum_max``; refused.

    Returns:
        the factors, in ``out_shape`` and the dtype of ``block_maxes``; blocks without an owner
        get zero.
    """
    if is_staged:
        raise NotImplementedError(
            "block_softmax_adjustment: is_staged is not provided by the emulated bridge"
        )
    if out_shape is None and block_maxes.dim() != 5:
        raise ValueError(
            "block_softmax_adjustment: out_shape is required unless block_maxes has 5 dimensions, "
            f"got {tuple(block_maxes.shape)}"
        )
    shape = list(out_shape) if out_shape is not None else list(block_maxes.shape)
    blocks, count = shape[0], math.prod(shape[1:])
    maxes = block_maxes.reshape(blocks, -1)[:, :count].to(torch.float32)
    sums = block_sums.reshape(blocks, -1)[:, :count].to(torch.float32)
    # Blocks without an owner fall into one more group, which nobody reads.
    owners = torch.where(block_groups < 0, batch_size, block_groups).to(torch.int64)
    group_max = torch.full((batch_size + 1, count), float("-inf"), device=maxes.device)
    group_max = group_max.scatter_reduce_(0, owners.unsqueeze(-1).expand_as(maxes), maxes, "amax")
    factors = (maxes - group_max.index_select(0, owners)).exp_()
    group_sum = torch.zeros((batch_size + 1, count), device=maxes.device)
    group_sum = group_sum.index_add_(0, owners, sums * factors)
    denominator = group_sum.index_select(0, owners)
    owned = (block_groups >= 0).unsqueeze(-1)
    factors = torch.where(owned & (denominator > 0), factors / denominator, 0.0).reshape(shape)
    if attn_fused_mult is not None:
        factors = factors * attn_fused_mult
    return _finish(factors, output_scale, output_dtype or block_maxes.dtype)
