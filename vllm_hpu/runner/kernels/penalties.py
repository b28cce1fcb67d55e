"""Repetition, frequency and presence penalties, and the token counts they need.

Replaces `PenaltiesState.apply` and `bincount` of `vllm.v1.worker.gpu.sample.penalties`: the
object knows on the host which penalties a step uses and whether it has draft tokens, a kernel
would have to do all the work every time. `N` is the number of logits rows, `V` the vocabulary,
`S` the number of request-state rows.
"""

import numpy as np
import torch
from torch.nn.functional import pad
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext
from vllm.v1.worker.gpu.sample.penalties import PenaltiesState

from vllm_hpu.runner.kernels.bits import pack, unpack
from vllm_hpu.runner.kernels.rows import dump_row, take


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
        factor = torch.where(scores > 0, 1.0 / penalty, penalty)
        scores.mul_(factor.masked_fill_(~prompt.logical_or_(seen), 1.0))
    if np.any(self.frequency_penalty.np[rows] != 0.0):
        scores.sub_(counts * take(self.frequency_penalty.gpu, idx)[:, None])
    if np.any(self.presence_penalty.np[rows] != 0.0):
        scores.sub_(seen * take(self.presence_penalty.gpu, idx)[:, None])
    if scores.dtype != logits.dtype:
        logits.copy_(scores)
    return logits


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


def bincount(
    expanded_idx_mapping: torch.Tensor,
    all_token_ids: torch.Tensor,
    prompt_len: torch.Tensor,
    prefill_len: torch.Tensor,
    prompt_bin_mask: torch.Tensor,
    output_bin_counts: torch.Tensor,
    max_prefill_len: int,
) -> None:
    """Count the tokens of new requests from scratch. Replaces `penalties.bincount`.

    expanded_idx_mapping: [n] state rows of the requests; all_token_ids: [S, L] int32; prompt_len,
    prefill_len: [S] int32; prompt_bin_mask: [S, ceil(V / 32)] int32, the set of prompt tokens,
    written; output_bin_counts: [S, V] int32, counts of tokens generated before a preemption,
    written. max_prefill_len bounds prefill_len of these requests.
    """
    vocab_size = output_bin_counts.shape[1]
    # Powers of two keep the number of shapes small; extra rows are the dump row.
    count = expanded_idx_mapping.shape[0]
    extra = (1 << (count - 1).bit_length()) - count
    rows = pad(expanded_idx_mapping.long(), (0, extra), value=dump_row(all_token_ids))
    length = min(1 << max(max_prefill_len - 1, 0).bit_length(), all_token_ids.shape[1])

    tokens = take(all_token_ids[:, :length], rows).long()
    column = torch.arange(length, dtype=prompt_len.dtype, device=rows.device)
    in_prompt = column < take(prompt_len, rows)[:, None]
    in_output = ~in_prompt & (column < take(prefill_len, rows)[:, None])
    known = (tokens >= 0) & (tokens < vocab_size)
    bits = 32 * prompt_bin_mask.shape[1]
    # What does not count goes to a column of its own, behind the vocabulary.
    members = torch.zeros(rows.shape[0], bits + 1, dtype=torch.int32, device=rows.device)
    members.scatter_(1, tokens.masked_fill(~(in_prompt & known), bits), 1)
    prompt_bin_mask.index_copy_(0, rows, pack(members[:, :bits].contiguous()))
    counted = (in_output & known).to(torch.int32)
    counts = torch.zeros(rows.shape[0], vocab_size, dtype=torch.int32, device=rows.device)
    counts.scatter_add_(1, tokens.clamp_(0, vocab_size - 1), counted)
    output_bin_counts.index_copy_(0, rows, counts)
