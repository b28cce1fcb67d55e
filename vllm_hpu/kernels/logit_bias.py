"""Allowed tokens, logit bias and minimum length.

Replaces `LogitBiasState.apply` of `vllm.v1.worker.gpu.sample.logit_bias`: the object knows on the
host which of the three a step uses.
"""

import numpy as np
import torch
from vllm.v1.worker.gpu.sample.logit_bias import LogitBiasState
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext

from vllm_hpu.kernels.rows import take

_MASKED = float("-inf")


def apply(self: LogitBiasState, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
    """Apply all three in place; logits [N, V] in and out. Replaces `LogitBiasState.apply`."""
    rows, idx = ctx.idx_mapping_np, ctx.expanded_idx_mapping
    if np.any(self.num_allowed_token_ids.np[rows]):
        tokens, count = listed(self.allowed_token_ids.gpu, self.num_allowed_token_ids.gpu, idx)
        keep_only(logits, tokens, count > 0)
    if np.any(self.num_logit_bias.np[rows]):
        tokens, count = listed(self.logit_bias_token_ids.gpu, self.num_logit_bias.gpu, idx)
        add_bias(logits, tokens, count, take(self.logit_bias.gpu, idx))
    if np.any(self.num_stop_token_ids.np[rows]):
        tokens, count = listed(self.stop_token_ids.gpu, self.num_stop_token_ids.gpu, idx)
        too_short = (count > 0) & (ctx.pos + 1 < take(self.min_lens.gpu, idx))
        restore = None
        if np.any(self.restore_when_all_masked.np[rows]):
            restore = take(self.restore_when_all_masked.gpu, idx) != 0
        mask_tokens(logits, tokens, too_short, restore)
    return logits


def listed(
    table: torch.Tensor, counts: torch.Tensor, idx: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's token list [N, W] int64, filled up with its first token, and its length [N].

    Repeating a token lets a scatter write the same value twice instead of a wrong one.
    """
    tokens, count = take(table, idx).long(), take(counts, idx)
    column = torch.arange(tokens.shape[1], dtype=count.dtype, device=count.device)
    return torch.where(column < count[:, None], tokens, tokens[:, :1]), count


def add_bias(
    logits: torch.Tensor, tokens: torch.Tensor, count: torch.Tensor, bias: torch.Tensor
) -> None:
    """Add ``bias`` [N, W] to the logits of ``tokens`` [N, W], the first ``count`` [N] of them."""
    column = torch.arange(tokens.shape[1], dtype=count.dtype, device=count.device)
    bias = bias.masked_fill(column >= count[:, None], 0.0)
    logits.scatter_add_(1, tokens, bias.to(logits.dtype))


def keep_only(logits: torch.Tensor, tokens: torch.Tensor, active: torch.Tensor) -> None:
    """Mask everything but `tokens` [N, W] in the rows where `active` [N]."""
    kept = logits.gather(1, tokens)
    logits.masked_fill_(active[:, None], _MASKED).scatter_(1, tokens, kept)


def mask_tokens(
    logits: torch.Tensor,
    tokens: torch.Tensor,
    active: torch.Tensor,
    restore: torch.Tensor | None,
) -> None:
    """Mask `tokens` [N, W] in the rows where `active` [N].

    Where `restore` [N], a row that has nothing left gets its tokens back: a grammar that allows
    nothing but a stop token wins over the minimum length.
    """
    before = logits.gather(1, tokens)
    active = active[:, None]
    logits.scatter_(1, tokens, before.masked_fill(active, _MASKED))
    if restore is not None:
        nothing_left = logits.amax(dim=-1, keepdim=True) == _MASKED
        back = ~active | (nothing_left & restore[:, None] & (before < float("inf")))
        logits.scatter_(1, tokens, before.masked_fill_(~back, _MASKED))
