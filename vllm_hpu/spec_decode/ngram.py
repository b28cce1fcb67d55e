"""Drafts copied from the request's own text: prompt lookup ("ngram") on the device.

The longest suffix of a request's tokens, between ``prompt_lookup_min`` and ``prompt_lookup_max``
long, is looked for earlier in the same tokens; what followed it there is proposed. Among equally
long matches the last one counts. The rules are those of vLLM's ngram proposer for its runner V2
(``v1/worker/gpu/spec_decode/ngram/speculator.py``), which is written in Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F
from vllm.v1.worker.gpu.spec_decode.speculator import BaseSpeculator

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.config.compilation import CUDAGraphMode
    from vllm.v1.worker.gpu.dp_utils import DPSyncState
    from vllm.v1.worker.gpu.input_batch import InputBatch
    from vllm.v1.worker.gpu.states import RequestState

__all__ = ["NgramSpeculator", "lookup", "window_for", "windows"]

SMALLEST_WINDOW = 256


def window_for(longest_tokens: int, max_model_len: int) -> int:
    """How many columns of the token table to search: a power of two that covers the longest row.

    Args:
        longest_tokens: an upper bound of the rows' lengths.
        max_model_len: columns of the table.
    """
    window = SMALLEST_WINDOW
    while window < longest_tokens:
        window *= 2
    return min(window, max_model_len)


def windows(max_model_len: int) -> Iterator[int]:
    """All that :func:`window_for` gives, the smallest first."""
    window = window_for(1, max_model_len)
    yield window
    while window < max_model_len:
        window = window_for(window + 1, max_model_len)
        yield window


def lookup(
    tokens: torch.Tensor, lengths: torch.Tensor, min_n: int, max_n: int, num_drafts: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find what followed the last occurrence of each row's longest repeated suffix.

    Every size comes from the arguments' shapes: no synchronisation, one recipe per shape.

    Args:
        tokens: int32 ``[rows, window]``; a row's tokens from the left, anything behind them.
        lengths: int32 ``[rows]``, tokens in each row; rows longer than the window give garbage.
        min_n, max_n: bounds of the suffix length, 1 <= min_n <= max_n.
        num_drafts: tokens wanted per row.

    Returns:
        drafts int32 ``[rows, num_drafts]`` and found bool ``[rows, num_drafts]``; a draft is
        meaningful only where found.
    """
    rows, window = tokens.shape
    lengths = lengths.unsqueeze(-1)
    ends = torch.arange(window, dtype=torch.int32, device=tokens.device)
    # A match may end anywhere before the row's last token.
    matching = ends < lengths - 1
    matched = torch.zeros((rows, window), dtype=torch.int32, device=tokens.device)
    for back in range(max_n):
        position = (lengths - 1 - back).clamp(0, window - 1).long()
        suffix_token = tokens.gather(1, position)
        # Column p holds the token at p - back; -1, which no token is, where there is none.
        earlier = F.pad(tokens, (back, 0), value=-1)[:, :window]
        matching = matching & (earlier == suffix_token)
        matched = matched + matching.to(torch.int32)
    # The longest match wins, then the last: one maximum over both, packed.
    score = torch.where(matched >= min_n, matched * window + ends, 0).amax(dim=1, keepdim=True)
    hit = score > 0
    start = score % window + 1
    wanted = start + torch.arange(num_drafts, dtype=torch.int32, device=tokens.device)
    drafts = tokens.gather(1, wanted.clamp(max=window - 1).long())
    return drafts, hit & (wanted < lengths)


class NgramSpeculator(BaseSpeculator):
    """Prompt lookup for vLLM's runner V2."""

    supports_mm_inputs = False
    # There is no draft distribution: drafts are verified as if proposed with certainty.
    draft_logits: torch.Tensor | None = None

    def __init__(
        self, vllm_config: VllmConfig, device: torch.device, req_states: RequestState
    ) -> None:
        speculative = vllm_config.speculative_config
        assert speculative is not None  # the caller has chosen by it
        low, high = speculative.prompt_lookup_min, speculative.prompt_lookup_max
        if low is None or high is None or not 1 <= low <= high:
            raise ValueError(
                f"ngram speculation needs 1 <= prompt_lookup_min <= prompt_lookup_max, got "
                f"{low} and {high}. Set both in --speculative-config."
            )
        self.min_n, self.max_n = low, high
        self.num_speculative_steps: int = speculative.num_speculative_tokens
        self.max_model_len: int = vllm_config.model_config.max_model_len
        self.req_states = req_states
        self.device = device
        self._launch: Callable[[int, int], torch.Tensor] | None = None

    def propose_by(self, launch: Callable[[int, int], torch.Tensor]) -> None:
        """Propose by one launch instead of operators: ``launch(longest, rows)``."""
        self._launch = launch

    def init_cudagraph_manager(self, cudagraph_mode: CUDAGraphMode) -> None:
        """No graph: there is no model to run."""

    def capture(self) -> None:
        """No graph: there is no model to run."""

    @torch.inference_mode()
    def propose(
        self,
        input_batch: InputBatch,
        attn_metadata: Any,
        slot_mappings: Any,
        last_hidden_states: torch.Tensor,
        aux_hidden_states: list[torch.Tensor] | None,
        num_sampled: torch.Tensor,
        num_rejected: torch.Tensor,
        last_sampled: torch.Tensor,
        next_prefill_tokens: torch.Tensor,
        temperature: torch.Tensor,
        seeds: torch.Tensor,
        dp_sync_state: DPSyncState | None = None,
        dummy_run: bool = False,
        skip_attn_for_dummy_run: bool = False,
        mm_inputs: tuple[list[torch.Tensor], torch.Tensor] | None = None,
        is_profile: bool = False,
        num_speculative_tokens: int | None = None,
    ) -> torch.Tensor:
        """Drafts int64 ``[rows, speculative tokens]`` of the step's rows.

        A row without a match, or still in its prompt, gets its last sampled token throughout:
        vLLM verifies drafts like any others, and these will usually be rejected.
        """
        rows = input_batch.idx_mapping
        if dummy_run:
            return torch.zeros(
                (rows.shape[0], self.num_speculative_steps), dtype=torch.int64, device=self.device
            )
        # The sampled token stands behind the last one that was computed.
        longest = int(input_batch.seq_lens_cpu_upper_bound.max()) + 1
        if self._launch is not None:
            return self._launch(longest, rows.shape[0])
        window = window_for(longest, self.max_model_len)
        tokens = self.req_states.all_token_ids.gpu[:, :window].index_select(0, rows)
        lengths = self.req_states.total_len.gpu.index_select(0, rows)
        drafts, found = lookup(tokens, lengths, self.min_n, self.max_n, self.num_speculative_steps)
        found = found & (num_sampled > 0).unsqueeze(-1)
        fallback = last_sampled.view(-1).index_select(0, rows).unsqueeze(-1)
        return torch.where(found, drafts.to(torch.int64), fallback)
