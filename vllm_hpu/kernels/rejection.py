"""Verification of draft tokens: accept, reject, resample.

Replaces `RejectionSampler._verify`, which calls six kernels through `rejection_sample`, and two
kernels around it, of `vllm.v1.worker.gpu.spec_decode`. `R` is the number of rows, `K` of draft
tokens per row at most, `N` the number of logits rows (a row has its drafts plus one), `V` the
vocabulary, `S` the number of request-state rows.

Sources: Leviathan et al. 2023, arXiv:2211.17192 (token by token); Sun et al. 2024,
arXiv:2403.10444 (block verification).
"""

from dataclasses import dataclass

import numpy as np
import torch
from vllm.v1.worker.gpu.spec_decode.rejection_sampler import RejectionSampler

from vllm_hpu.kernels.noise import gumbel, gumbel64, hash_rows, hash_tokens, uniform
from vllm_hpu.kernels.rows import lengths_of, rows_of, take

_MASKED = float("-inf")
# Acceptance draws come from a hash of their own, independent of the noise that picks tokens.
_ACCEPT_DOMAIN = 0x5BD1E995


def verify(
    self: RejectionSampler,
    logits: torch.Tensor,
    draft_logits: torch.Tensor | None,
    draft_sampled: torch.Tensor,
    pos: torch.Tensor,
    cu_num_logits: torch.Tensor,
    idx_mapping: torch.Tensor,
    idx_mapping_np: np.ndarray,
    expanded_idx_mapping: torch.Tensor,
    expanded_local_pos: torch.Tensor,
    seq_lens_upper_bound_np: np.ndarray,
    verify_draft_sampled: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Processed logits [N, V], sampled tokens [R, K + 1] int64 and their number [R] int32.

    Replaces `RejectionSampler._verify`. Arguments as for `Drafts`, and those of vLLM's
    `apply_sampling_params`.
    """
    if self.watermark_key is not None:
        raise NotImplementedError(
            "Watermarking together with speculative decoding is not implemented for Gaudi. "
            "Start without one of the two."
        )
    processed = self.sampler.apply_sampling_params(
        logits,
        expanded_idx_mapping,
        idx_mapping,
        idx_mapping_np,
        pos,
        draft_sampled,
        expanded_local_pos,
        seq_lens_upper_bound_np,
    )
    states = self.sampler.sampling_states
    num_rows = idx_mapping.shape[0]
    drafts = Drafts(
        processed,
        draft_logits,
        verify_draft_sampled,
        cu_num_logits[:num_rows].long(),
        lengths_of(cu_num_logits, num_rows).long() - 1,
        pos,
        idx_mapping,
        states.temperature.gpu,
        states.seeds.gpu,
        self.num_speculative_steps,
        self.synthetic_conditional_rates,
        self.sampler.use_fp64_gumbel,
    )
    if not states.temperature.np[idx_mapping_np].any():
        sampled, num_sampled = drafts.verify_greedy()
    else:
        sampled, num_sampled = drafts.verify(self.use_block_verification)
    return processed, sampled, num_sampled


@dataclass
class Drafts:
    """One step's drafts and all that is needed to verify them."""

    target_logits: torch.Tensor  # [N, V], after sampling parameters, temperature included
    draft_logits: torch.Tensor | None  # [S, K, >= V], before temperature; None: certain drafts
    draft_sampled: torch.Tensor  # [N] input tokens; -1: a draft to reject
    first: torch.Tensor  # [R] int64, the first logits row of each row
    num_drafts: torch.Tensor  # [R] int64
    pos: torch.Tensor  # [N] int64
    idx_mapping: torch.Tensor  # [R]
    temperature: torch.Tensor  # [S] float32
    seeds: torch.Tensor  # [S] int64
    num_steps: int  # K
    synthetic_rates: torch.Tensor | None = None  # [K]: accept by chance, for benchmarks
    use_fp64: bool = False

    def __post_init__(self) -> None:
        self.num_rows = self.idx_mapping.shape[0]
        vocab = self.target_logits.shape[1]
        if self.draft_logits is not None:
            # The wider of the two is padded.
            vocab = min(vocab, self.draft_logits.shape[-1])
        self.logits = self.target_logits[:, :vocab]
        device = self.logits.device
        self.states = self.idx_mapping.long()
        step = torch.arange(self.num_steps, device=device)
        self.present = step < self.num_drafts[:, None]
        # Logits row of each draft, [R, K]; absent ones repeat some row and are not looked at.
        self.row = (self.first[:, None] + step).clamp_(max=self.logits.shape[0] - 1)
        after = (self.row + 1).clamp_(max=self.logits.shape[0] - 1)
        drafts = self.draft_sampled.long()[after]
        self.valid = self.present & (drafts >= 0)
        self.drafts = drafts.clamp_(min=0)

    def verify_greedy(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All rows take the most likely token: a draft is right or wrong."""
        best = self.logits.argmax(dim=-1)
        accepted = _chain(self._greedy_accepts(best))
        return self._finish(accepted, best[self._stop(accepted)])

    def verify(self, by_block: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows with a temperature accept by chance, others if the draft is the most likely."""
        temp = take(self.temperature, self.states)
        greedy = temp == 0
        scores = self.logits.float()
        target_norm = torch.logsumexp(scores, dim=-1)
        target_logp = scores[self.row, self.drafts] - target_norm[self.row]
        draft_scores = draft_norm = None
        draft_logp = torch.zeros_like(target_logp)
        if self.draft_logits is not None:
            scale = temp.masked_fill(greedy, 1.0)[:, None, None]
            draft_scores = take(self.draft_logits, self.states).float()
            draft_scores = draft_scores[:, : self.num_steps, : scores.shape[1]] / scale
            draft_norm = torch.logsumexp(draft_scores, dim=-1)
            draft_logp = draft_scores.gather(2, self.drafts[:, :, None])[..., 0] - draft_norm

        chance = self._chance()
        log_ratio = torch.zeros_like(target_logp)  # of everything accepted so far, for blocks
        if by_block:
            log_ratio = self._running_ratio(target_logp - draft_logp)
            ahead = self._residual_mass(scores, target_norm, draft_scores, draft_norm, log_ratio)
            by_chance = _longest(self.valid, chance <= ahead)
        elif self.synthetic_rates is not None:
            by_chance = _chain(self.valid & (chance < self.synthetic_rates))
        else:
            by_chance = _chain(self.valid & (target_logp > chance.log() + draft_logp))
        best = scores.argmax(dim=-1)
        accepted = torch.where(greedy, _chain(self._greedy_accepts(best)), by_chance)

        stop = self._stop(accepted)
        final = scores[stop]
        step = accepted.clamp(max=self.num_steps - 1)[:, None]
        rejected = self.valid.gather(1, step)[:, 0] & (accepted < self.num_drafts) & ~greedy
        if draft_scores is None or draft_norm is None:
            token = torch.where(rejected[:, None], self.drafts.gather(1, step), 0)
            left = final.scatter(1, token, _MASKED)
        else:
            shift = log_ratio.gather(1, (step - 1).clamp_(min=0)).masked_fill_(step == 0, 0.0)
            log_p = final - target_norm[stop][:, None] + shift
            width = draft_scores.shape[2]
            log_q = draft_scores.gather(1, step[:, :, None].expand(-1, 1, width))[:, 0]
            ratio = (log_q - draft_norm.gather(1, step) - log_p).exp_()
            # log(p - q) = log p + log(1 - q / p); nothing is left where q >= p.
            left = (log_p + torch.log1p(-ratio)).masked_fill_(~(ratio < 1.0), _MASKED)
        final = torch.where(rejected[:, None], left, final)
        tokens = torch.arange(final.shape[1], dtype=torch.int32, device=final.device)
        draw = gumbel64 if self.use_fp64 else gumbel
        noise = draw(take(self.seeds, self.states), self.pos.long()[stop], tokens)
        token = noise.mul_(~greedy[:, None]).add_(final).argmax(dim=-1)
        return self._finish(accepted, torch.where(greedy, best[stop], token))

    def _greedy_accepts(self, best: torch.Tensor) -> torch.Tensor:
        if self.synthetic_rates is not None:
            return self.valid & (self._chance() < self.synthetic_rates)
        return self.valid & (best[self.row] == self.drafts)

    def _chance(self) -> torch.Tensor:
        """Uniform (0, 1) numbers [R, K], by seed and position."""
        seeds = take(self.seeds, self.states)[:, None].expand_as(self.row).reshape(-1)
        rows = hash_rows(seeds, self.pos.long()[self.row].view(-1), domain=_ACCEPT_DOMAIN)
        zero = torch.zeros(1, dtype=torch.int32, device=rows.device)
        return uniform(hash_tokens(rows, zero)).view(self.row.shape)

    def _running_ratio(self, log_ratio: torch.Tensor) -> torch.Tensor:
        """log min(1, ...) of the joint ratio after each draft, [R, K]; invalid ones carry on."""
        running = torch.zeros_like(log_ratio[:, 0])
        columns = []
        for step in range(self.num_steps):
            running = running + log_ratio[:, step].masked_fill(~self.valid[:, step], 0.0)
            running = running.clamp_(max=0.0)
            columns.append(running)
        return torch.stack(columns, dim=1)

    def _residual_mass(
        self,
        scores: torch.Tensor,
        target_norm: torch.Tensor,
        draft_scores: torch.Tensor | None,
        draft_norm: torch.Tensor | None,
        log_ratio: torch.Tensor,
    ) -> torch.Tensor:
        """Block verification's threshold after each draft, [R, K].

        With p the joint ratio so far and m the mass of max(p * target - draft, 0) at the next
        draft's position: m / (m + 1 - p); p itself after the last draft.
        """
        ratio = log_ratio.exp()
        following = self.row[:, 1:]
        p = ratio[:, :-1]
        if draft_scores is None or draft_norm is None:
            token = self.drafts[:, 1:]
            target = (scores[following, token] - target_norm[following]).exp_()
            mass = p * (1.0 - target)
        else:
            target = (scores[following] - target_norm[following][..., None]).exp_()
            draft = (draft_scores[:, 1:] - draft_norm[:, 1:, None]).exp_()
            mass = (target.mul_(p[..., None]) - draft).clamp_(min=0.0).sum(dim=-1)
        rest = mass + 1.0 - p
        threshold = torch.where(rest > 0, mass / rest, 1.0)
        threshold = torch.where(self.valid[:, 1:], threshold, p)
        return torch.cat([threshold, ratio[:, -1:]], dim=1)

    def _stop(self, accepted: torch.Tensor) -> torch.Tensor:
        """Logits row [R] of the token after the accepted drafts."""
        return self.first + accepted

    def _finish(
        self, accepted: torch.Tensor, token: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The accepted drafts, then `token` [R], and how many that is."""
        sampled = torch.nn.functional.pad(self.drafts, (0, 1))
        sampled.scatter_(1, accepted[:, None], token[:, None])
        return sampled, (accepted + 1).to(torch.int32)


def _chain(accepts: torch.Tensor) -> torch.Tensor:
    """Length [R] int64 of the run of True at the start of each row [R, K]."""
    return accepts.long().cumprod(dim=1).sum(dim=1)


def _longest(valid: torch.Tensor, accepts: torch.Tensor) -> torch.Tensor:
    """1 + the last accepted step before the first invalid one, 0 if there is none; [R] int64."""
    open_ = valid.long().cumprod(dim=1)
    number = torch.arange(1, valid.shape[1] + 1, device=valid.device)
    return (open_ * accepts * number).amax(dim=1)


def flatten_sampled(
    flat_sampled: torch.Tensor,
    sampled: torch.Tensor,
    sampled_stride: int,
    num_sampled: torch.Tensor,
    cu_num_logits: torch.Tensor,
    num_warps: int | None = None,
) -> None:
    """Sampled tokens in the order of the logits rows.

    Replaces `rejection_sampler._flatten_sampled_kernel`. flat_sampled: [N] int64, written where
    there is a token; sampled: [R, K + 1] int64; num_sampled: [R] int32; cu_num_logits: [R + 1].
    """
    num_rows, num_logits = sampled.shape[0], flat_sampled.shape[0]
    row = rows_of(cu_num_logits, num_rows, num_logits).clamp_(max=num_rows - 1)
    step = torch.arange(num_logits, device=row.device) - take(cu_num_logits, row)
    token = sampled[row, step.clamp(0, sampled.shape[1] - 1)]
    flat_sampled.copy_(torch.where(step < take(num_sampled, row), token, flat_sampled))


def gather_draft_sampled(
    draft_sampled: torch.Tensor,
    pos: torch.Tensor,
    input_ids: torch.Tensor,
    positions: torch.Tensor,
    logits_indices: torch.Tensor,
    expanded_idx_mapping: torch.Tensor,
    expanded_local_pos: torch.Tensor,
    prefill_len: torch.Tensor,
    num_logits: int,
    BLOCK_SIZE: int,
) -> None:
    """Token and position of each logits row; -1 for drafts nobody has proposed.

    Replaces `rejection_sampler._gather_draft_sampled_kernel`. A step that starts within the
    prompt has placeholders for drafts. draft_sampled: [N] int32 and pos: [N] int64, written;
    input_ids: [T] int32; positions: [T] int64; logits_indices: [N] int64;
    expanded_idx_mapping: [N]; expanded_local_pos: [N] int32; prefill_len: [S] int32.
    """
    position = take(positions, logits_indices)
    starts_in_prompt = position - expanded_local_pos < take(prefill_len, expanded_idx_mapping)
    placeholder = starts_in_prompt & (expanded_local_pos > 0)
    draft_sampled.copy_(take(input_ids, logits_indices).masked_fill_(placeholder, -1))
    pos.copy_(position)
