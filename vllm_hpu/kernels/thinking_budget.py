"""Thinking budget: force the end-of-reasoning marker once a request has thought long enough.

Replaces two methods of `ThinkingBudgetState` of `vllm.v1.worker.gpu.sample.thinking_budget`.
vLLM's kernels walk each request from where they stopped last time, a loop whose length depends on
data. Here a new request is searched once as a whole; after that a step can only have added
1 + K tokens (K draft tokens), so a window of fixed size is enough.
"""

import numpy as np
import torch
from torch.nn.functional import pad
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext
from vllm.v1.worker.gpu.sample.thinking_budget import ThinkingBudgetState

from vllm_hpu.kernels.bad_words import effective_tokens
from vllm_hpu.kernels.rows import dump_row, lookup, take

_stage_budgets = ThinkingBudgetState.apply_staged_writes
_FORCED = 1.0e9  # as in vLLM: above every logit, yet finite


def apply_staged_writes(self: ThinkingBudgetState) -> None:
    """Also search the tokens of new requests for markers.

    Replaces `ThinkingBudgetState.apply_staged_writes`. The request's tokens must be on the device.
    """
    new = list(self._reset_reqs) if self.enabled else []
    _stage_budgets(self)
    if not new:
        return
    states = np.full(1 << (len(new) - 1).bit_length(), dump_row(self.cached_scan_pos))
    states[: len(new)] = new
    rows = async_tensor_h2d(states.astype(np.int64), device=self.device)
    tokens = take(self.req_states.all_token_ids.gpu, rows)
    position = torch.arange(tokens.shape[1], dtype=torch.int32, device=self.device)
    total = take(self.req_states.total_len.gpu, rows)[:, None]
    _remember(self, rows, tokens, position.expand_as(tokens), total)


def apply(self: ThinkingBudgetState, logits: torch.Tensor, ctx: LogitsContext) -> None:
    """Raise the logit of the next marker token where the budget is spent.

    Replaces `ThinkingBudgetState.apply`. logits: [N, V], updated.
    """
    if not self.enabled or not np.any(self.use_thinking_budget[ctx.idx_mapping_np]):
        return
    start, natural_end = self.reasoning_start_token_ids, self.natural_reasoning_end_token_ids
    forced_end = self.reasoning_end_token_ids
    drafts = self.req_states.num_speculative_steps
    longest = max(start.shape[0], natural_end.shape[0])

    # Markers that end within the tokens committed since the last step.
    rows = ctx.idx_mapping.long()
    totals = self.req_states.total_len.gpu
    position = _tail(take(totals, rows), drafts + longest)
    tokens = lookup(self.req_states.all_token_ids.gpu, rows[:, None].expand_as(position), position)
    _remember(self, rows, tokens, position, take(totals, rows)[:, None])

    # Per logits row: the same with the drafts before it.
    states, local = ctx.expanded_idx_mapping.long(), ctx.expanded_local_pos
    total = take(totals, states)
    length = total + local
    window = drafts + max(longest, forced_end.shape[0])
    position = _tail(length, window)
    tokens = effective_tokens(
        self.req_states.all_token_ids.gpu, states, total, ctx.input_ids, local, position
    )
    end = length[:, None]
    last_start = torch.maximum(
        take(self.cached_last_start, states), _last_match(tokens, position, end, start)
    )
    last_end = torch.maximum(
        take(self.cached_last_end, states), _last_match(tokens, position, end, natural_end)
    )
    budget = take(self.thinking_token_budget.gpu, states)
    thinking = (last_start >= 0) & (last_start > last_end)
    spent = (budget >= 0) & thinking & (length - last_start - start.shape[0] >= budget)
    marker = forced_end[_begun(tokens, position, forced_end)].long()[:, None]
    forced = logits.gather(1, marker).masked_fill_(spent[:, None], _FORCED)
    logits.scatter_(1, marker, forced)


def _tail(length: torch.Tensor, size: int) -> torch.Tensor:
    """Positions of the last `size` tokens, [N, size]; negative ones do not exist."""
    back = torch.arange(-size, 0, dtype=length.dtype, device=length.device)
    return length[:, None] + back


def _last_match(
    tokens: torch.Tensor, position: torch.Tensor, end: torch.Tensor, marker: torch.Tensor
) -> torch.Tensor:
    """Last position [N] at which `marker` [m] stands whole before `end` [N, 1]; -1 if nowhere.

    tokens, position: [N, P], consecutive.
    """
    size = marker.shape[0]
    match = (position >= 0) & (position + size <= end)
    ahead = pad(tokens, (0, size), value=-1)
    for i in range(size):
        match &= ahead[:, i : i + tokens.shape[1]] == marker[i]
    return position.masked_fill(~match, -1).amax(dim=1)


def _begun(tokens: torch.Tensor, position: torch.Tensor, marker: torch.Tensor) -> torch.Tensor:
    """How many tokens of `marker`, less than all, the sequence ends with; [N] int64."""
    begun = torch.zeros(tokens.shape[0], dtype=torch.int64, device=tokens.device)
    for size in range(1, marker.shape[0]):
        exists = position[:, -size] >= 0
        match = (tokens[:, -size:] == marker[:size]).all(dim=1) & exists
        begun = begun.masked_fill(match, size)
    return begun


def _remember(
    self: ThinkingBudgetState,
    rows: torch.Tensor,
    tokens: torch.Tensor,
    position: torch.Tensor,
    end: torch.Tensor,
) -> None:
    """Move the last known markers of state rows [n] forward to those among `tokens` [n, P]."""
    for known, marker in (
        (self.cached_last_start, self.reasoning_start_token_ids),
        (self.cached_last_end, self.natural_reasoning_end_token_ids),
    ):
        found = _last_match(tokens, position, end, marker)
        known.index_copy_(0, rows, torch.maximum(take(known, rows), found))
