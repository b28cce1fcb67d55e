"""What attention needs of a step, derived on the device from its integers, once for all layers.

Every size comes from the arguments' shapes or from static numbers, never from a value, so that a
captured graph stays right for every step of its key.
"""

from typing import NamedTuple

import torch

from vllm_hpu.attention.cache import PageLayout

__all__ = [
    "HIDDEN",
    "DecodePlan",
    "PrefillPlan",
    "TokenPlan",
    "derive_decode",
    "derive_prefill",
    "derive_prefill_cached",
    "derive_tokens",
    "window_blocks",
]

HIDDEN = -1.0e30
"""Added to the score of a key that must not be seen. Finite, so that a row which sees nothing gives
an arbitrary finite result instead of NaN; far below every score in float32 and bfloat16."""

_HIDDEN_FLOAT16 = -6.0e4
"""The same for float16, whose range ends at 65504: scores may differ by almost as much."""


def hidden_value(dtype: torch.dtype) -> float:
    """What to add to a score in ``dtype`` so that its key is not seen."""
    return _HIDDEN_FLOAT16 if dtype == torch.float16 else HIDDEN


class TokenPlan(NamedTuple):
    """Which row each token belongs to.

    row       int64 [tokens], the row; ``rows`` for padding tokens
    position  int64 [tokens], position within the sequence; 0 for padding tokens
    offset    int64 [tokens], position within the row's tokens of this step
    """

    row: torch.Tensor
    position: torch.Tensor
    offset: torch.Tensor


class DecodePlan(NamedTuple):
    """The decode rows' blocks. N blocks, B rows, Q queries per row, H query heads.

    pages     int64 [parts * N * kv_heads], pages to gather, keys first
    groups    int64 [N], the row a block belongs to; B for blocks of nobody
    mapping   [N, B] in the model's dtype, one-hot of ``groups``; zero for blocks of nobody
    merge     [B, N], its transpose
    merge32   float32 [B + 1, N], the same, and a row for the blocks of nobody
    bias      float32 [N, 1, Q, block_size], 0 or ``HIDDEN``
    floor     float32 [B + 1, H, Q], ``HIDDEN``: where the rows' maxima start
    gather    int64 [B * Q], the token of each query; None when query i is token i
    scatter   int64 [tokens], the query of each token; None when token i is query i
    is_decode bool [tokens, 1, 1], whether the token's row is a decode row; None when all are
    """

    pages: torch.Tensor
    groups: torch.Tensor
    mapping: torch.Tensor
    merge: torch.Tensor
    merge32: torch.Tensor
    bias: torch.Tensor
    floor: torch.Tensor
    gather: torch.Tensor | None
    scatter: torch.Tensor | None
    is_decode: torch.Tensor | None


class PrefillPlan(NamedTuple):
    """Whom the tokens of prefill rows see.

    mask   [tokens, keys] in the model's dtype, 0 or hidden
    pages  int64 [parts * kv_heads * M], pages to gather, keys first; None when the keys are this
           step's own
    """

    mask: torch.Tensor
    pages: torch.Tensor | None


def window_blocks(blocks: int, rows: int, window: int | None, queries: int, block_size: int) -> int:
    """Blocks ``rows`` rows can need when each query sees ``window`` keys; at most ``blocks``."""
    if window is None:
        return blocks
    # The keys of all queries of a row span window + queries - 1 tokens, wherever they start.
    return min(blocks, rows * (-(-(window + queries - 1) // block_size) + 1))


def derive_tokens(query_start_loc: torch.Tensor, seq_lens: torch.Tensor, tokens: int) -> TokenPlan:
    """Give each token its row and its position.

    Args:
        query_start_loc: int32 ``[rows + 1]``; padding rows repeat the last value.
        seq_lens: int32 ``[rows]``, tokens of each sequence at the end of the step.
    """
    index = torch.arange(tokens, device=query_start_loc.device)
    starts = query_start_loc.to(torch.int64)
    row = torch.searchsorted(starts[1:].contiguous(), index, right=True)
    real = row < seq_lens.shape[0]
    safe = row.clamp_max(seq_lens.shape[0] - 1)
    offset = index - starts[safe]
    computed = seq_lens.to(torch.int64) - (starts[1:] - starts[:-1])
    position = torch.where(real, computed[safe] + offset, 0)
    return TokenPlan(row, position, torch.where(real, offset, 0))


class _Blocks(NamedTuple):
    """Blocks of some rows, listed row after row.

    row       int64 [N], owner (clamped)
    real      bool [N], whether the entry is a block at all
    physical  int64 [N], block in the cache; 0 (the null block) for entries of nobody
    first_key int64 [N], position in the sequence of the block's first token
    """

    row: torch.Tensor
    real: torch.Tensor
    physical: torch.Tensor
    first_key: torch.Tensor


def _list_blocks(
    counts: torch.Tensor,
    skipped: torch.Tensor,
    block_table: torch.Tensor,
    blocks: int,
    block_size: int,
) -> _Blocks:
    """List ``counts`` [rows] blocks per row, leaving out the first ``skipped`` [rows] of each."""
    rows, width = block_table.shape
    ends = counts.cumsum(0)
    index = torch.arange(blocks, device=counts.device)
    owner = torch.searchsorted(ends, index, right=True)
    real = owner < rows
    row = owner.clamp_max(rows - 1)
    local = index + (skipped + counts - ends)[row]
    physical = block_table[row, local.clamp(0, width - 1)].to(torch.int64)
    return _Blocks(row, real, torch.where(real, physical, 0), local * block_size)


def _pages(blocks: torch.Tensor, layout: PageLayout, heads_outside: bool) -> torch.Tensor:
    """Pages of ``blocks`` [N], flattened from [parts, kv_heads, N] or [parts, N, kv_heads]."""
    base = blocks * layout.pages_per_block
    heads = torch.arange(layout.kv_heads, device=blocks.device) * layout.parts
    parts = torch.arange(layout.parts, device=blocks.device).view(-1, 1, 1)
    grid = heads[:, None] + base[None, :] if heads_outside else base[:, None] + heads[None, :]
    return (parts + grid).flatten()


def derive_decode(
    tokens: TokenPlan | None,
    query_start_loc: torch.Tensor,
    seq_lens: torch.Tensor,
    block_table: torch.Tensor,
    rows: int,
    blocks: int,
    queries: int,
    heads: int,
    layout: PageLayout,
    window: int | None,
    causal: bool,
    dtype: torch.dtype,
) -> DecodePlan:
    """List the blocks of the decode rows and say which key each query sees.

    A decode row is one of the first ``rows`` rows with 1 to ``queries`` tokens in this step.

    Args:
        tokens: None when the step has no prefill row and token i is the query of row i.
        query_start_loc, seq_lens, block_table: int32 ``[R + 1]``, ``[R]``, ``[R, width]`` with R
            at least ``rows``.
        blocks: N, room for all blocks of the decode rows together.
        window: keys a query sees, itself included; None for all.
    """
    device = seq_lens.device
    size = layout.block_size
    starts = query_start_loc[: rows + 1].to(torch.int64)
    lengths = starts[1:] - starts[:-1]
    ends = seq_lens[:rows].to(torch.int64)
    computed = ends - lengths
    active = (lengths > 0) & (lengths <= queries)
    needed = torch.div(ends + (size - 1), size, rounding_mode="floor")
    if window is None:
        skipped = torch.zeros_like(needed)
    else:
        first_key = (computed - (window - 1)).clamp_min(0)
        skipped = torch.div(first_key, size, rounding_mode="floor")
    counts = torch.where(active, needed - skipped, 0)
    listed = _list_blocks(counts, skipped, block_table[:rows], blocks, size)

    groups = torch.where(listed.real, listed.row, rows)
    one_hot = groups[:, None] == torch.arange(rows + 1, device=device)
    key = (listed.first_key[:, None] + torch.arange(size, device=device))[:, None, :]
    query = (computed[listed.row][:, None] + torch.arange(queries, device=device))[:, :, None]
    visible = key <= query if causal else key < ends[listed.row][:, None, None]
    if window is not None:
        visible = visible & (key > query - window)
    bias = torch.where(visible, 0.0, HIDDEN).unsqueeze(1)

    mapping = one_hot[:, :rows].to(dtype)
    gather = scatter = is_decode = None
    if tokens is not None:
        total = tokens.row.shape[0]
        step = torch.arange(queries, device=device)
        gather = (starts[:-1, None] + step).clamp_max(total - 1).flatten()
        scatter = (tokens.row * queries + tokens.offset).clamp_max(rows * queries - 1)
        owner = tokens.row.clamp_max(rows - 1)
        is_decode = ((tokens.row < rows) & active[owner]).view(-1, 1, 1)
    return DecodePlan(
        pages=_pages(listed.physical, layout, heads_outside=False),
        groups=groups,
        mapping=mapping,
        merge=mapping.t().contiguous(),
        merge32=one_hot.t().to(torch.float32),
        bias=bias,
        floor=torch.full((rows + 1, heads, queries), HIDDEN, device=device),
        gather=gather,
        scatter=scatter,
        is_decode=is_decode,
    )


def _additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(
        visible.logical_not(), hidden_value(dtype)
    )


def derive_prefill(
    tokens: TokenPlan, window: int | None, causal: bool, dtype: torch.dtype
) -> PrefillPlan:
    """Let each token see the tokens of its own row in this step; no row has more context than that.

    Padding tokens see each other, decode tokens the tokens of their row, so no token sees nothing.
    """
    row = tokens.row
    index = torch.arange(row.shape[0], device=row.device)
    visible = row[:, None] == row[None, :]
    if causal:
        visible = visible & (index <= index[:, None])
    if window is not None:
        visible = visible & (index > (index - window)[:, None])
        if not causal:
            visible = visible & (index < (index + window)[:, None])
    return PrefillPlan(_additive(visible, dtype), None)


def derive_prefill_cached(
    tokens: TokenPlan,
    query_start_loc: torch.Tensor,
    seq_lens: torch.Tensor,
    block_table: torch.Tensor,
    decode_rows: int,
    decode_queries: int,
    blocks: int,
    layout: PageLayout,
    window: int | None,
    causal: bool,
    dtype: torch.dtype,
) -> PrefillPlan:
    """List the blocks of the prefill rows, this step's tokens included, and who sees which key.

    A prefill row is every row that :func:`derive_decode` does not take. Tokens of other rows see
    nothing, which gives them a finite result that nobody uses.
    """
    size = layout.block_size
    device = seq_lens.device
    starts = query_start_loc.to(torch.int64)
    lengths = starts[1:] - starts[:-1]
    ends = seq_lens.to(torch.int64)
    rows = ends.shape[0]
    active = lengths > 0
    if decode_rows:
        first_rows = torch.arange(rows, device=device) < decode_rows
        active = active & ((lengths > decode_queries) | first_rows.logical_not())
    needed = torch.div(ends + (size - 1), size, rounding_mode="floor")
    if window is None:
        skipped = torch.zeros_like(needed)
    else:
        first_key = (ends - lengths - (window - 1)).clamp_min(0)
        skipped = torch.div(first_key, size, rounding_mode="floor")
    counts = torch.where(active, needed - skipped, 0)
    listed = _list_blocks(counts, skipped, block_table, blocks, size)

    owner = torch.where(listed.real, listed.row, -1)
    key = (listed.first_key[:, None] + torch.arange(size, device=device)).flatten()
    owner_of_key = owner[:, None].expand(-1, size).flatten()
    visible = tokens.row[:, None] == owner_of_key[None, :]
    position = tokens.position[:, None]
    if causal:
        visible = visible & (key <= position)
    else:
        visible = visible & (key < ends[listed.row][:, None].expand(-1, size).flatten())
    if window is not None:
        visible = visible & (key > position - window)
    return PrefillPlan(
        _additive(visible, dtype), _pages(listed.physical, layout, heads_outside=True)
    )
