"""Inputs of a draft model's forwards, derived on the device from the request states.

A drafter runs after a step's tokens have been appended to their requests, so every token that it
reads stands in the requests' token table: what a row drafts from is the table behind the row's
computed tokens, whether these came from a prompt, from sampling or from accepted drafts. Nothing
here depends on a value for its shape.

`R` is the number of rows, `T` of draft tokens, `S` of request-state rows, `L` the longest sequence.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from vllm.v1.attention.backends.utils import PAD_SLOT_ID

from vllm_hpu.graphs.region import region
from vllm_hpu.kernels.rows import lengths_of, lookup, rows_of, take

__all__ = ["DraftTokens", "TargetRows", "derive_first", "derive_next"]


class TargetRows(NamedTuple):
    """The target's rows of the step, persistent tensors.

    state            int64 [R], row of the request states
    query_start_loc  int32 [R + 1]
    seq_lens         int32 [R], rejected drafts included; 0 for padding rows
    rejected         int32 [R]
    token_ids        int32 [S, L], tokens of each request, the newest included
    tables           int32 [R, blocks] each, one per group of the KV cache
    block_sizes      tokens of a block of each group
    """

    state: torch.Tensor
    query_start_loc: torch.Tensor
    seq_lens: torch.Tensor
    rejected: torch.Tensor
    token_ids: torch.Tensor
    tables: list[torch.Tensor]
    block_sizes: tuple[int, ...]


class DraftTokens(NamedTuple):
    """The inputs of one draft forward, persistent tensors that are written.

    input_ids        int32 [T]
    positions        int64 [T], 0 for padding tokens
    query_start_loc  int32 [R + 1]
    seq_lens         int32 [R]
    slots            int64 [groups, T]
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    query_start_loc: torch.Tensor
    seq_lens: torch.Tensor
    slots: torch.Tensor


@region
def derive_first(
    rows: TargetRows, draft: DraftTokens, last: torch.Tensor, ahead: int, extra: int, longest: int
) -> None:
    """Inputs of the first forward, over all of the target's tokens; writes ``last`` int64 [R].

    Behind rejected drafts stand any tokens: what they compute is overwritten in the next step.

    Args:
        last: the token of each row from which the first draft is predicted.
        ahead: 1 for heads that read the token after the one whose hidden state they get.
        extra: 1 for models that also read the newest token, which the target has not: one token
            more in each row.
        longest: most tokens a sequence can have.
    """
    count, length = rows.state.shape[0], draft.positions.shape[0]
    target = lengths_of(rows.query_start_loc, count)
    more = (target > 0).to(torch.int32) * extra
    starts = torch.nn.functional.pad((target + more).cumsum(0, dtype=torch.int32), (1, 0))
    draft.query_start_loc.copy_(starts)
    draft.seq_lens.copy_((rows.seq_lens + more).clamp_max(longest))
    last.copy_((starts[1:] - 1 - rows.rejected).clamp_min(0))

    row = rows_of(starts, count, length)
    real = row < count
    owner = row.clamp_max(count - 1)
    offset = take(rows.seq_lens - target - starts[:-1], owner)
    position = torch.arange(length, dtype=torch.int64, device=starts.device) + offset
    position = position.clamp_max(longest - 1).masked_fill(~real, 0)
    draft.positions.copy_(position)
    draft.input_ids.copy_(lookup(rows.token_ids, take(rows.state, owner), position + ahead))
    _fill_slots(rows, draft, owner, real)


@region
def derive_next(
    rows: TargetRows,
    draft: DraftTokens,
    tokens: torch.Tensor,
    previous: torch.Tensor,
    longest: int,
) -> None:
    """Inputs of a further forward: one token per row, the last draft.

    Args:
        tokens: int64 [T], that draft; T is the number of rows that can hold requests.
        previous: int64 [T], the position before it.
    """
    count = draft.positions.shape[0]
    real = lengths_of(rows.query_start_loc, count) > 0
    # At the end of the context the last place is repeated; its result is thrown away.
    position = (previous + 1).clamp_max(longest - 1).masked_fill(~real, 0)
    draft.positions.copy_(position)
    draft.input_ids.copy_(tokens)
    draft.seq_lens.copy_((position + 1).masked_fill(~real, 0))
    owner = torch.arange(count, device=position.device)
    _fill_slots(rows, draft, owner, real)


def _fill_slots(
    rows: TargetRows, draft: DraftTokens, owner: torch.Tensor, real: torch.Tensor
) -> None:
    """Slots of tokens at ``draft.positions`` of the rows ``owner`` [T]; none for padding."""
    for group, size in enumerate(rows.block_sizes):
        if not size:
            draft.slots[group].fill_(PAD_SLOT_ID)
            continue
        column = torch.div(draft.positions, size, rounding_mode="floor")
        block = lookup(rows.tables[group], owner, column)
        slot = (block - column) * size + draft.positions
        draft.slots[group].copy_(slot.masked_fill(~real, PAD_SLOT_ID))
