"""What requests can ask of a draw beside temperature, top-k and top-p, all in one go.

Grammars, allowed tokens, logit bias, minimum length, penalties, bad words, min-p and
log-probabilities: each is computed for every row and does nothing where it is not asked for. The
order is that of vLLM's sampler. `N` is the number of logits rows, `V` the vocabulary, `S` the
number of request-state rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from vllm.v1.worker.gpu.sample.bad_words import BadWordsState
from vllm.v1.worker.gpu.sample.logit_bias import LogitBiasState
from vllm.v1.worker.gpu.sample.penalties import PenaltiesState
from vllm.v1.worker.gpu.sample.sampler import Sampler
from vllm.v1.worker.gpu.states import RequestState

from vllm_hpu.kernels.bad_words import bad_words
from vllm_hpu.kernels.bits import unpack
from vllm_hpu.kernels.logit_bias import add_bias, keep_only, listed, mask_tokens
from vllm_hpu.kernels.penalties import draft_counts, penalize_repetition
from vllm_hpu.kernels.rows import take

_MASKED = float("-inf")


class LogitRows(NamedTuple):
    """What each row of logits belongs to, [N] each.

    state     int64, row of the request states
    place     int32, its number among the rows of its request, which are consecutive
    position  int64, of the token that the logits follow
    tokens    int64, that token if it is a draft; -1 for a draft nobody has proposed
    """

    state: torch.Tensor
    place: torch.Tensor
    position: torch.Tensor
    tokens: torch.Tensor


class TokenList(NamedTuple):
    """Tokens of each request: int32 [S, width], of which the first ``count`` [S] are in use."""

    tokens: torch.Tensor
    count: torch.Tensor


class Special(NamedTuple):
    """What requests ask, by row of the request states; and the step's grammars.

    mask         int32 [N, ceil(V / 32)], a set bit allows the token
    acceptable   int32 [R], drafts of the row that its grammar has seen
    allowed      the only tokens allowed, if any
    biased, bias tokens, and what is added to their logits, float32 [S, width]
    stops        tokens that may not come before ``min_lens`` [S] int32
    restore      int32 [S], not 0: the stops come back where nothing else is left
    bad_words    int32 [S, J], the words' tokens, one word after the other
    word_starts  int32 [S, words + 1], where they begin
    word_count   int32 [S]
    prompt_set   int32 [S, ceil(V / 32)], tokens of the prompt
    counts       int32 [S, V], of sampled tokens
    token_ids    int32 [S, L], all tokens of the request
    """

    mask: torch.Tensor
    acceptable: torch.Tensor
    allowed: TokenList
    biased: TokenList
    bias: torch.Tensor
    stops: TokenList
    min_lens: torch.Tensor
    restore: torch.Tensor
    bad_words: torch.Tensor
    word_starts: torch.Tensor
    word_count: torch.Tensor
    repetition: torch.Tensor
    frequency: torch.Tensor
    presence: torch.Tensor
    prompt_set: torch.Tensor
    counts: torch.Tensor
    min_p: torch.Tensor
    prompt_len: torch.Tensor
    total_len: torch.Tensor
    token_ids: torch.Tensor


def special_of(
    sampler: Sampler, requests: RequestState, mask: torch.Tensor, acceptable: torch.Tensor
) -> Special:
    """The tensors of vLLM's sampler and request states; they stay where they are."""
    bias, penalties, words = sampler.logits_processors
    # vLLM's type says less than its order does.
    assert isinstance(bias, LogitBiasState)
    assert isinstance(penalties, PenaltiesState)
    assert isinstance(words, BadWordsState)
    return Special(
        mask,
        acceptable,
        TokenList(bias.allowed_token_ids.gpu, bias.num_allowed_token_ids.gpu),
        TokenList(bias.logit_bias_token_ids.gpu, bias.num_logit_bias.gpu),
        bias.logit_bias.gpu,
        TokenList(bias.stop_token_ids.gpu, bias.num_stop_token_ids.gpu),
        bias.min_lens.gpu,
        bias.restore_when_all_masked.gpu,
        words.bad_word_token_ids.gpu,
        words.bad_word_offsets.gpu,
        words.num_bad_words.gpu,
        penalties.repetition_penalty.gpu,
        penalties.frequency_penalty.gpu,
        penalties.presence_penalty.gpu,
        penalties.prompt_bin_mask,
        penalties.output_bin_counts,
        sampler.sampling_states.min_p.gpu,
        requests.prompt_len.gpu,
        requests.total_len.gpu,
        requests.all_token_ids.gpu,
    )


def with_grammar(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """``logits`` [N, V] without the tokens whose bit in ``mask`` [N, ceil(V / 32)] is 0."""
    return logits.masked_fill(~unpack(mask, logits.shape[1]), _MASKED)


def processed(logits: torch.Tensor, rows: LogitRows, special: Special) -> torch.Tensor:
    """Float32 logits [N, V] after all that comes before the temperature, but for the grammar."""
    scores = logits.to(torch.float32, copy=True)
    state = rows.state
    tokens, count = listed(*special.allowed, state)
    keep_only(scores, tokens, count > 0)
    add_bias(scores, *listed(*special.biased, state), take(special.bias, state))
    tokens, count = listed(*special.stops, state)
    too_short = (count > 0) & (rows.position + 1 < take(special.min_lens, state))
    mask_tokens(scores, tokens, too_short, take(special.restore, state) != 0)
    _penalize(scores, rows, special)
    # The strides are for kernels that get addresses.
    bad_words(
        scores,
        scores.stride(0),
        state,
        special.bad_words,
        special.bad_words.stride(0),
        special.word_starts,
        special.word_starts.stride(0),
        special.word_count,
        special.token_ids,
        special.token_ids.stride(0),
        special.prompt_len,
        special.total_len,
        rows.tokens,
        rows.place,
    )
    return scores


def _penalize(scores: torch.Tensor, rows: LogitRows, special: Special) -> None:
    state, size = rows.state, scores.shape[1]
    counts = take(special.counts, state)
    counts += draft_counts(rows.tokens, rows.place, size)
    seen = counts > 0
    repetition = take(special.repetition, state)[:, None]
    known = unpack(take(special.prompt_set, state), size).logical_or_(seen)
    penalize_repetition(scores, known, repetition)
    scores.sub_(counts * take(special.frequency, state)[:, None])
    scores.sub_(seen * take(special.presence, state)[:, None])


def with_min_p(scores: torch.Tensor, min_p: torch.Tensor) -> torch.Tensor:
    """Without the tokens less probable than min_p [N] times the most probable one; 0 masks none."""
    threshold = scores.amax(dim=-1, keepdim=True) + min_p.log()[:, None]
    return scores.masked_fill(scores < threshold, _MASKED)
