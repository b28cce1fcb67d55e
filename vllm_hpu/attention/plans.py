"""What each kind of attention layer asks of a step, derived for all kinds at once.

Layers that ask the same share what is derived. All of it is one region, so that a compiled step has
one recipe for it, however many kinds of layers and groups of the KV cache a model has.
"""

from typing import NamedTuple

import torch

from vllm_hpu.attention import derive
from vllm_hpu.attention.cache import PageLayout, token_rows
from vllm_hpu.attention.derive import DecodePlan, PrefillPlan
from vllm_hpu.attention.shape import AttentionShape
from vllm_hpu.graphs.region import region

__all__ = ["Group", "Need", "Plans", "Rows", "derive_plans", "plans_of"]


class Need(NamedTuple):
    """What the layers of one kind ask of a step.

    layout      of their cache; None for layers without one
    heads       query heads
    window      keys a query sees, itself included; None for all
    dtype       of queries
    stores      whether they write this step's keys and values by :func:`token_rows`
    from_cache  whether keys and values stand in the cache only, written by another layer
    """

    layout: PageLayout | None
    heads: int
    window: int | None
    dtype: torch.dtype
    stores: bool
    from_cache: bool


class Plans(NamedTuple):
    """What the layers of one kind get.

    rows     where to write this step's keys and values; None for layers that do not
    decode   None when the step has no decode rows
    prefill  None when it has no others
    reach    how many tokens back a token sees within the step; None when it sees tokens ahead
    """

    rows: torch.Tensor | None
    decode: DecodePlan | None
    prefill: PrefillPlan | None
    reach: int | None


class Rows(NamedTuple):
    """A step's rows, the same for all groups of the KV cache.

    query_start_loc  int32 [rows + 1]
    seq_lens         int32 [rows]
    """

    query_start_loc: torch.Tensor
    seq_lens: torch.Tensor


class Group(NamedTuple):
    """A step's integers for the layers of one group of the KV cache, and what these ask of it.

    block_table      int32 [rows, width]
    slot_mapping     int64 [tokens]
    causal           whether a query sees no later key
    longest          most tokens a sequence can have
    """

    block_table: torch.Tensor
    slot_mapping: torch.Tensor
    shape: AttentionShape
    causal: bool
    longest: int
    needs: tuple[Need, ...]


def plans_of(rows: Rows, groups: list[Group]) -> list[list[Plans]]:
    """The plans of all groups, one for each of their needs."""
    tokens = None
    if not all(_is_plain(group.shape, need) for group in groups for need in group.needs):
        tokens = derive.derive_tokens(*rows, groups[0].shape.tokens)
    return [[_plans(rows, tokens, group, need) for need in group.needs] for group in groups]


derive_plans = region(plans_of, per_shape=True)
"""The same as a region."""


def _has_decode(shape: AttentionShape, need: Need) -> bool:
    return shape.decode_rows > 0 and need.layout is not None


def _is_plain(shape: AttentionShape, need: Need) -> bool:
    """Whether token i is the query of row i: nobody has to be told apart."""
    alone = _has_decode(shape, need) and not shape.has_prefill
    return alone and shape.decode_queries == 1 and shape.tokens == shape.decode_rows


def _plans(rows: Rows, tokens: derive.TokenPlan | None, group: Group, need: Need) -> Plans:
    shape = group.shape
    stored = decode = prefill = reach = None
    if need.stores and need.layout is not None:
        stored = token_rows(group.slot_mapping, need.layout)
    if _is_plain(shape, need):
        tokens = None
    if _has_decode(shape, need):
        decode = _decode(rows, tokens, group, need)
    if tokens is not None and (shape.has_prefill or decode is None):
        prefill = _prefill(rows, tokens, group, need)
        if group.causal:
            reach = min(need.window or group.longest, group.longest) - 1
    return Plans(stored, decode, prefill, reach)


def _decode(
    rows: Rows, tokens: derive.TokenPlan | None, group: Group, need: Need
) -> DecodePlan | None:
    """Blocks of the decode rows."""
    shape, layout = group.shape, need.layout
    if layout is None:
        return None
    blocks = derive.window_blocks(
        shape.decode_blocks, shape.decode_rows, need.window, shape.decode_queries, layout.block_size
    )
    return derive.derive_decode(
        tokens,
        *rows,
        group.block_table,
        shape.decode_rows,
        max(1, blocks),
        shape.decode_queries,
        need.heads,
        layout,
        need.window,
        group.causal,
        need.dtype,
    )


def _prefill(rows: Rows, tokens: derive.TokenPlan, group: Group, need: Need) -> PrefillPlan:
    """Mask of the prefill rows, and their blocks where they have context."""
    shape, layout, window = group.shape, need.layout, need.window
    # With keys in the cache only, blocks are listed even when this step's tokens are all there is.
    if layout is None or not (shape.prefill_blocks or need.from_cache):
        return derive.derive_prefill(tokens, window, group.causal, need.dtype)
    # This step's tokens fill at most so many blocks, one begun block per row included.
    count = rows.seq_lens.shape[0]
    fresh = shape.tokens // layout.block_size + count
    blocks = shape.prefill_blocks or fresh
    if window is not None:
        room = derive.window_blocks(blocks, count, window, 1, layout.block_size)
        blocks = min(blocks, room + fresh)
    return derive.derive_prefill_cached(
        tokens,
        *rows,
        group.block_table,
        shape.decode_rows,
        shape.decode_queries,
        blocks,
        layout,
        window,
        group.causal,
        need.dtype,
    )
