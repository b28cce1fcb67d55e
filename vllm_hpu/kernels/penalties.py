"""Repetition, frequency and presence penalties, and the token counts they need.

Replaces two methods of `PenaltiesState` of `vllm.v1.worker.gpu.sample.penalties`: the object knows
on the host which penalties a step uses and whether it has draft tokens, a kernel would have to do
all the work every time. `N` is the number of logits rows, `V` the vocabulary,
`S` the number of request-state rows.
"""

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.worker.gpu.sample.logits_processor.interface import (
    LogitsContext,
    LogitsProcRequestState,
)
from vllm.v1.worker.gpu.sample.penalties import PenaltiesState

from vllm_hpu.device.own_graph import own_graph
from vllm_hpu.kernels.bits import pack, unpack
from vllm_hpu.kernels.rows import take


def apply(self: PenaltiesState, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
    """Apply the penalties in place; [N, V] in and out. Replaces `PenaltiesState.apply`."""
    rows = ctx.idx_mapping_np
    if not np.any(self.use_penalty[rows]):
        return logits
    idx = ctx.expanded_idx_mapping
    counts = take(self.output_bin_counts, idx)
    if idx.shape[0] != len(rows):
        counts += draft_counts(ctx.input_ids, ctx.expanded_local_pos, logits.shape[1])
    seen = counts > 0
    scores = logits.float()
    if np.any(self.repetition_penalty.np[rows] != 1.0):
        penalty = take(self.repetition_penalty.gpu, idx)[:, None]
        prompt = unpack(take(self.prompt_bin_mask, idx), logits.shape[1])
        penalize_repetition(scores, prompt.logical_or_(seen), penalty)
    if np.any(self.frequency_penalty.np[rows] != 0.0):
        scores.sub_(counts * take(self.frequency_penalty.gpu, idx)[:, None])
    if np.any(self.presence_penalty.np[rows] != 0.0):
        scores.sub_(seen * take(self.presence_penalty.gpu, idx)[:, None])
    if scores.dtype != logits.dtype:
        logits.copy_(scores)
    return logits


def penalize_repetition(scores: torch.Tensor, known: torch.Tensor, penalty: torch.Tensor) -> None:
    """Make the tokens `known` [N, V] less likely, in place. scores: [N, V]; penalty: [N, 1]."""
    factor = torch.where(scores > 0, 1.0 / penalty, penalty)
    scores.mul_(factor.masked_fill_(~known, 1.0))


def draft_counts(tokens: torch.Tensor, local_pos: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """How often each token occurs among the drafts before each logits row, [N, V] int32.

    tokens: [N] the row's input token, -1 for a draft that nobody proposed (vLLM fills a row's
    drafts up with it in steps with a grammar), which counts for nothing; local_pos: [N] number of
    the row within its request, whose rows are consecutive: row 0 is the sampled token, later ones
    are drafts. A running count over all rows, minus its value at the request's row 0, counts the
    request's own drafts.
    """
    is_draft = ((local_pos > 0) & (tokens >= 0)).to(torch.int32)
    ones = torch.zeros(tokens.shape[0], vocab_size, dtype=torch.int32, device=tokens.device)
    ones.scatter_(1, tokens.long().clamp(min=0)[:, None], is_draft[:, None])
    running = ones.cumsum(dim=0, dtype=torch.int32)
    first = torch.arange(tokens.shape[0], device=tokens.device) - local_pos
    return running - take(running, first)


def apply_staged_writes(self: PenaltiesState) -> None:
    """Count the tokens of new requests with penalties, and send the penalties.

    Replaces `PenaltiesState.apply_staged_writes`. The requests' tokens must be on the device.
    One request at a time and each in its full length: one graph, whoever comes.
    """
    for request in self._new_penalties_reqs:
        count_tokens(self, request)
    self._new_penalties_reqs.clear()
    for penalty in (self.repetition_penalty, self.frequency_penalty, self.presence_penalty):
        penalty.copy_to_uva()


def count_tokens(self: PenaltiesState, request: int) -> None:
    """Count a request's tokens from scratch: the set of prompt tokens, [S, ceil(V / 32)] int32, and
    how often those were generated that came before a preemption, [S, V] int32.

    request: row of the request states.
    """
    # A tensor of its own: a view of a longer one would be another graph.
    row = async_tensor_h2d([request], device=self.device, dtype=torch.int64)
    with own_graph():
        _count(row, self.req_states, self.prompt_bin_mask, self.output_bin_counts)


def _count(
    row: torch.Tensor,
    requests: LogitsProcRequestState,
    prompt_bin_mask: torch.Tensor,
    output_bin_counts: torch.Tensor,
) -> None:
    vocab_size = output_bin_counts.shape[1]
    tokens = take(requests.all_token_ids.gpu, row).long()
    column = torch.arange(tokens.shape[1], dtype=torch.int32, device=row.device)
    in_prompt = column < take(requests.prompt_len.gpu, row)[:, None]
    in_output = ~in_prompt & (column < take(requests.prefill_len.gpu, row)[:, None])
    known = (tokens >= 0) & (tokens < vocab_size)
    bits = 32 * prompt_bin_mask.shape[1]
    # What does not count goes to a column of its own, behind the vocabulary.
    members = torch.zeros(1, bits + 1, dtype=torch.int32, device=row.device)
    members.scatter_(1, tokens.masked_fill(~(in_prompt & known), bits), 1)
    prompt_bin_mask.index_copy_(0, row, pack(members[:, :bits].contiguous()))
    counted = (in_output & known).to(torch.int32)
    counts = torch.zeros(1, vocab_size, dtype=torch.int32, device=row.device)
    counts.scatter_add_(1, tokens.clamp_(0, vocab_size - 1), counted)
    output_bin_counts.index_copy_(0, row, counts)
