"""A step's tokens as one graph: what is asked of a draw, and the draw.

Whatever requests ask for is in every graph that can do it, and does nothing in the rows that do not
ask: which requests share a step changes no graph. The order of operations and the noise are those
of vLLM's sampler, so that a seed gives the same tokens whichever of the two a step takes.

`R` is the number of rows, `W` of places for logits per row (one, and one per draft token),
`N = R * W`, `V` the vocabulary, `S` the number of request-state rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from vllm_hpu.graphs.region import region
from vllm_hpu.kernels.noise import gumbel, gumbel64
from vllm_hpu.kernels.rejection import Drafts
from vllm_hpu.kernels.rows import take
from vllm_hpu.kernels.top_k_top_p import apply_top_k_top_p
from vllm_hpu.sample.logits_processors import (
    LogitRows,
    Special,
    processed,
    with_grammar,
    with_min_p,
)


class Draw(NamedTuple):
    """How a step's tokens are drawn.

    special   with all that requests can ask for beside temperature, top-k and top-p
    random    by temperature; otherwise the most likely token
    filtered  by top-k and top-p; only if random
    """

    special: bool = False
    random: bool = False
    filtered: bool = False

    def can(self, other: Draw) -> bool:
        """Whether a graph of this draw serves a step that needs ``other``."""
        return all(mine >= wanted for mine, wanted in zip(self, other, strict=True))


GREEDY = Draw()
DRAWS = (
    Draw(special=True, random=True, filtered=True),
    Draw(special=True),
    Draw(random=True, filtered=True),
    Draw(random=True),
    GREEDY,
)
"""The draws that have graphs, the most able first."""


class DrawRows(NamedTuple):
    """The rows of a draw.

    state     int64 [R], row of the request states
    seq_lens  int32 [R], tokens of the row at the end of the step; 0 for padding rows
    logits    int32 [R], places it uses
    drafts    int64 [S, W - 1], proposed tokens by row of the request states; None if W is 1
    draft_logits  [S, W - 1, >= V], what these were drawn from, before the temperature; None for
                  drafts that were proposed with certainty
    """

    state: torch.Tensor
    seq_lens: torch.Tensor
    logits: torch.Tensor
    drafts: torch.Tensor | None
    draft_logits: torch.Tensor | None = None


class Wishes(NamedTuple):
    """What requests ask of every draw, by row of the request states, [S] each."""

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    seeds: torch.Tensor
    prefill_len: torch.Tensor


class Drawn(NamedTuple):
    """The result of a draw.

    tokens    int64 [R, W], of which the first ``sampled`` count
    sampled   int32 [R]; 0 for rows in the middle of their prompt and padding rows
    rejected  int32 [R], draft tokens that were not accepted
    """

    tokens: torch.Tensor
    sampled: torch.Tensor
    rejected: torch.Tensor


class Scored(NamedTuple):
    """Log-probabilities of drawn tokens, or their logits.

    tokens  int64 [N, 1 + most], the drawn token and the most likely ones
    scores  float32 [N, 1 + most]
    ranks   int64 [N], of the drawn token
    """

    tokens: torch.Tensor
    scores: torch.Tensor
    ranks: torch.Tensor

    @classmethod
    def zeros(cls, rows: int, most: int, device: torch.device) -> Scored:
        """For ``rows`` rows of logits and the ``most`` likely tokens."""
        return cls(
            torch.zeros(rows, 1 + most, dtype=torch.int64, device=device),
            torch.zeros(rows, 1 + most, dtype=torch.float32, device=device),
            torch.zeros(rows, dtype=torch.int64, device=device),
        )


class Rules(NamedTuple):
    """What is the same for all steps of an engine.

    fp64        draw the noise in float64
    by_block    verify drafts as a block (arXiv:2403.10444)
    raw         scores are from before sampling parameters
    normalised  scores are log-probabilities, not logits
    """

    fp64: bool = False
    by_block: bool = False
    raw: bool = True
    normalised: bool = True


@region
def draw_tokens(
    logits: torch.Tensor,
    rows: DrawRows,
    wishes: Wishes,
    special: Special | None,
    drawn: Drawn,
    scored: Scored | None,
    draw: Draw,
    rules: Rules,
) -> None:
    """Draw from ``logits`` [N, V] into ``drawn`` and, with ``special``, into ``scored``."""
    each = _logit_rows(rows, wishes, logits.shape[0] // rows.state.shape[0])
    scores = logits
    if special is not None:
        logits = with_grammar(logits, special.mask)
        scores = processed(logits, each, special)
    if draw.random:
        temperature = take(wishes.temperature, each.state)
        greedy = (temperature == 0)[:, None]
        scores = scores.to(torch.float32) / temperature[:, None].masked_fill(greedy, 1.0)
        if special is not None:
            scores = with_min_p(scores, take(special.min_p, each.state))
        if draw.filtered:
            top_k, top_p = take(wishes.top_k, each.state), take(wishes.top_p, each.state)
            scores = apply_top_k_top_p(scores, top_k, top_p)

    if rows.drafts is not None:
        tokens, sampled = _verified(scores, rows, each, wishes, special, draw, rules)
    else:
        tokens, sampled = _drawn(scores, each, wishes, draw, rules), torch.ones_like(rows.logits)
    # A prompt has a token at least; the dump row's length is 0.
    done = rows.seq_lens >= take(wishes.prefill_len, rows.state).clamp_min(1)
    drawn.tokens.copy_(tokens)
    drawn.sampled.copy_(sampled.masked_fill(~done, 0))
    drawn.rejected.copy_((rows.logits - sampled).masked_fill(~done, 0))
    if scored is not None:
        score(logits if rules.raw else scores, tokens.view(-1), scored, rules.normalised)


def _logit_rows(rows: DrawRows, wishes: Wishes, width: int) -> LogitRows:
    """What each of the ``width`` places of each row holds."""
    count = rows.state.shape[0]
    place = torch.arange(width, dtype=torch.int32, device=rows.state.device)[None]
    first = (rows.seq_lens - rows.logits)[:, None]
    tokens = torch.zeros_like(rows.state)[:, None]
    if rows.drafts is not None:
        drafts = take(rows.drafts, rows.state)
        # A step that starts within the prompt has placeholders for drafts.
        in_prompt = first < take(wishes.prefill_len, rows.state)[:, None]
        missing = (place[:, 1:] >= rows.logits[:, None]) | in_prompt
        tokens = torch.cat([tokens, drafts.masked_fill(missing, -1)], dim=1)
    return LogitRows(
        rows.state[:, None].expand(count, width).reshape(-1),
        place.expand(count, width).reshape(-1),
        (first + place).clamp_min(0).to(torch.int64).view(-1),
        tokens.view(-1),
    )


def _drawn(
    scores: torch.Tensor, each: LogitRows, wishes: Wishes, draw: Draw, rules: Rules
) -> torch.Tensor:
    """One token per row, [N, 1], by the Gumbel-max method."""
    if draw.random:
        greedy = (take(wishes.temperature, each.state) == 0)[:, None]
        words = torch.arange(scores.shape[1], dtype=torch.int32, device=scores.device)
        noise = gumbel64 if rules.fp64 else gumbel
        scores = noise(take(wishes.seeds, each.state), each.position, words) * ~greedy + scores
    return scores.argmax(dim=-1, keepdim=True)


def _verified(
    scores: torch.Tensor,
    rows: DrawRows,
    each: LogitRows,
    wishes: Wishes,
    special: Special | None,
    draw: Draw,
    rules: Rules,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The accepted drafts and one token more, [R, W], and how many that is, [R] int32."""
    count, width = rows.state.shape[0], each.place.shape[0] // rows.state.shape[0]
    tokens = each.tokens
    if special is not None:
        # The grammar has not seen the drafts behind, so their masks allow everything.
        unseen = each.place.view(count, width) > special.acceptable[:, None]
        tokens = tokens.masked_fill(unseen.view(-1), -1)
    drafts = Drafts(
        scores,
        rows.draft_logits,
        tokens,
        torch.arange(0, count * width, width, device=scores.device),
        rows.logits.to(torch.int64) - 1,
        each.position,
        rows.state,
        wishes.temperature,
        wishes.seeds,
        width - 1,
        use_fp64=rules.fp64,
    )
    return drafts.verify(rules.by_block) if draw.random else drafts.verify_greedy()


def score(source: torch.Tensor, drawn: torch.Tensor, scored: Scored, normalised: bool) -> None:
    """Score the drawn tokens [N] and the most likely ones by ``source`` [N, V]."""
    best = torch.topk(source, scored.tokens.shape[1] - 1, dim=-1).indices
    tokens = torch.cat([drawn[:, None], best], dim=1)
    scores = source.to(torch.float32).gather(1, tokens)
    if normalised:
        scores = scores - torch.logsumexp(source.to(torch.float32), dim=-1, keepdim=True)
    scored.tokens.copy_(tokens)
    scored.scores.copy_(scores)
    scored.ranks.copy_((source >= source.gather(1, drawn[:, None])).sum(dim=-1))
