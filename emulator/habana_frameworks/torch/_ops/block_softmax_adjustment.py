"""``hpu::block_softmax_adjustment``, in one step or in two.

Schemas and reference mathematics: scripts/hpu_op.yaml and the tests of HabanaAI/
gaudi-pytorch-bridge (newer public commit).
"""

import math

import torch

from .block_softmax import finish, padded
from .library import operator

__all__ = ["block_softmax_adjustment", "block_softmax_staged_sum_max"]


def _statistics(
    maxes: torch.Tensor, sums: torch.Tensor, owners: torch.Tensor, batch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each block's maximum less that of its sequence, and the sum of each sequence.

    Args:
        maxes, sums: float32 ``[blocks, rows]``.
        owners: int64 ``[blocks]``; blocks without an owner are of the sequence ``batch_size``.

    Returns:
        ``[blocks, rows]`` and ``[batch_size + 1, rows]``.
    """
    shape = (batch_size + 1, maxes.shape[1])
    highest = torch.full(shape, float("-inf"), device=maxes.device)
    highest = highest.scatter_reduce_(0, owners.unsqueeze(-1).expand_as(maxes), maxes, "amax")
    relative = maxes - highest.index_select(0, owners)
    total = torch.zeros(shape, device=maxes.device)
    return relative, total.index_add_(0, owners, sums * relative.exp())


def _owners(block_groups: torch.Tensor, batch_size: int) -> torch.Tensor:
    # Blocks without an owner fall into one more group, which nobody reads.
    return torch.where(block_groups < 0, batch_size, block_groups).to(torch.int64)


def _row_shape(block_maxes: torch.Tensor) -> list[int]:
    """``[blocks, rows]`` of statistics, with the padding of the card."""
    if block_maxes.dim() == 2:
        return list(block_maxes.shape)
    if block_maxes.dim() != 5:
        raise ValueError(
            "block_softmax_staged_sum_max: block_maxes must have 5 or 2 dimensions, got "
            f"{tuple(block_maxes.shape)}"
        )
    return [block_maxes.shape[0], padded(math.prod(block_maxes.shape[1:-1]), block_maxes.dtype)]


def _fake_staged(block_maxes, block_sums, block_groups, batch_size):
    blocks, rows = _row_shape(block_maxes)
    return block_maxes.new_empty([blocks, rows]), block_maxes.new_empty([batch_size, rows])


@operator(
    "block_softmax_staged_sum_max(Tensor block_maxes, Tensor block_sums, Tensor block_groups,"
    " int batch_size) -> (Tensor, Tensor)",
    _fake_staged,
)
def block_softmax_staged_sum_max(
    block_maxes: torch.Tensor,
    block_sums: torch.Tensor,
    block_groups: torch.Tensor,
    batch_size: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first step of :func:`block_softmax_adjustment`, for its ``is_staged``.

    Arguments are those of the second step.

    Returns:
        per block its maximum less that of its sequence (0 without an owner) ``[blocks, rows]``,
        per sequence its sum ``[batch_size, rows]``, in the dtype of ``block_maxes``. What the card
        keeps in the first is not documented; only the second step should read it.
    """
    blocks, rows = _row_shape(block_maxes)
    missing = rows - block_maxes.numel() // blocks
    maxes, sums = (
        torch.nn.functional.pad(values.reshape(blocks, -1).to(torch.float32), (0, missing))
        for values in (block_maxes, block_sums)
    )
    relative, total = _statistics(maxes, sums, _owners(block_groups, batch_size), batch_size)
    relative = torch.where((block_groups >= 0).unsqueeze(-1), relative, 0.0)
    return relative.to(block_maxes.dtype), total[:batch_size].to(block_maxes.dtype)


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
        is_staged: the first two arguments are the results of
            :func:`block_softmax_staged_sum_max`.

    Returns:
        the factors, in ``out_shape`` and the dtype of ``block_maxes``; blocks without an owner
        get zero.
    """
    if is_staged and out_shape is None:
        if attn_fused_mult is None:
            raise ValueError(
                "block_softmax_adjustment: is_staged needs out_shape or attn_fused_mult"
            )
        out_shape = [*attn_fused_mult.shape[:-1], 1]
    if out_shape is None and block_maxes.dim() != 5:
        raise ValueError(
            "block_softmax_adjustment: out_shape is required unless block_maxes has 5 dimensions, "
            f"got {tuple(block_maxes.shape)}"
        )
    shape = list(out_shape) if out_shape is not None else list(block_maxes.shape)
    if attn_fused_mult is not None and shape[-1] == attn_fused_mult.shape[-1]:
        # The shape of the result; the factors themselves have one column.
        shape[-1] = 1
    blocks, count = shape[0], math.prod(shape[1:])
    owners = _owners(block_groups, batch_size)
    maxes = block_maxes.reshape(blocks, -1)[:, :count].to(torch.float32)
    if is_staged:
        relative = maxes
        total = torch.nn.functional.pad(block_sums[:, :count].to(torch.float32), (0, 0, 0, 1))
    else:
        sums = block_sums.reshape(blocks, -1)[:, :count].to(torch.float32)
        relative, total = _statistics(maxes, sums, owners, batch_size)
    denominator = total.index_select(0, owners)
    owned = (block_groups >= 0).unsqueeze(-1)
    factors = torch.where(owned & (denominator > 0), relative.exp() / denominator, 0.0)
    factors = factors.reshape(shape)
    if attn_fused_mult is not None:
        factors = factors * attn_fused_mult
    return finish(factors, output_scale, output_dtype or block_maxes.dtype)
