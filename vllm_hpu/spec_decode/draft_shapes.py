"""Sizes of a draft model's attention, from the planned key of the target's step."""

from __future__ import annotations

from vllm_hpu.attention.shape import AttentionShape
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.limits import Limits

__all__ = ["draft_rows", "first_shape", "next_shape"]


def draft_rows(key: GraphKey, limits: Limits) -> int:
    """Leading rows of a step of ``key`` that can hold requests."""
    return min(limits.max_num_seqs, key.tokens) if key.has_prefill else key.decode_rows


def first_shape(key: GraphKey, limits: Limits, extra: int) -> AttentionShape:
    """Of the first draft forward: the target's tokens, and ``extra`` more in each row."""
    rows = draft_rows(key, limits)
    return AttentionShape(
        tokens=key.tokens + extra * rows,
        decode_rows=key.decode_rows,
        decode_queries=limits.query_len + extra,
        # One more token begins one more block at most.
        decode_blocks=key.decode_blocks + extra * key.decode_rows,
        has_prefill=key.has_prefill,
        prefill_blocks=key.prefill_blocks + extra * rows if key.prefill_blocks else 0,
    )


def next_shape(key: GraphKey, limits: Limits, drafts: int) -> AttentionShape:
    """Of the further forwards: a token per row, whatever the row was in the target's step.

    Args:
        drafts: tokens that a row has been given behind those of the target, at most.
    """
    rows = draft_rows(key, limits)
    begun = -(-drafts // limits.block_size)
    blocks = key.decode_blocks + begun * rows
    if key.has_prefill:
        # Without cached context the step's own tokens are all that prefill rows have.
        blocks += key.prefill_blocks or key.tokens // limits.block_size + rows
    return AttentionShape(
        tokens=rows,
        decode_rows=rows,
        decode_queries=1,
        decode_blocks=min(blocks, rows * limits.blocks_per_row),
        has_prefill=False,
        prefill_blocks=0,
    )
