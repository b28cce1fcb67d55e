"""Sampling and feedback of a step as one launch each, for requests without special wishes.

vLLM's sampler decides on the host, step by step, which operators to launch. Here the decision is
made once per step among three kinds of draw, each with a graph per row bucket. A step in which a
request wants more (log-probabilities, penalties, a grammar, ...) takes vLLM's sampler, and only its
feedback is one launch.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.sample.output import SamplerOutput
from vllm.v1.worker.gpu.sample.sampler import Sampler

from vllm_hpu.attention.regions import region
from vllm_hpu.runner.kernels.inputs import post_update
from vllm_hpu.runner.kernels.noise import gumbel, gumbel64
from vllm_hpu.runner.kernels.rows import take

if TYPE_CHECKING:
    from vllm_hpu.runner.model_runner import HpuModelRunner
    from vllm_hpu.runner.step_inputs import StepInputs

_VLLM_PROCESSORS = 3
"""Logits processors that vLLM always has: bias, penalties, bad words. More are the user's."""


class Draw(IntEnum):
    """How a step's tokens are drawn; a later kind can do what an earlier one does."""

    GREEDY = 0
    RANDOM = 1  # by temperature
    FILTERED = 2  # by temperature, top-k and top-p


class Wishes(NamedTuple):
    """What requests ask of a draw, by row of the request states, [S] each."""

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    seeds: torch.Tensor
    prefill_len: torch.Tensor


class Drawn(NamedTuple):
    """The result of a draw, n rows.

    tokens    int64 [n, 1]
    sampled   int32 [n], 1; 0 for rows in the middle of their prompt and padding rows
    rejected  int32 [n], 0: there are no draft tokens
    """

    tokens: torch.Tensor
    sampled: torch.Tensor
    rejected: torch.Tensor


@region
def draw_tokens(
    logits: torch.Tensor,
    state: torch.Tensor,
    seq_lens: torch.Tensor,
    wishes: Wishes,
    drawn: Drawn,
    random: bool,
    filtered: bool,
    fp64: bool,
) -> None:
    """Draw a token per row from ``logits`` [n, V] into ``drawn``.

    The Gumbel-max method with the noise and the order of operations of vLLM's sampler, so that a
    seed gives the same tokens whichever of the two a step takes.

    Args:
        state: int64 ``[n]``, row of the request states.
        seq_lens: int32 ``[n]``, tokens of the row at the end of the step; 0 for padding rows.
        fp64: draw the noise in float64.
    """
    if random:
        temperature = take(wishes.temperature, state)
        greedy = (temperature == 0)[:, None]
        scores = logits.to(torch.float32) / temperature[:, None].masked_fill(greedy, 1.0)
        if filtered:
            top_k, top_p = take(wishes.top_k, state), take(wishes.top_p, state)
            scores = apply_top_k_top_p_pytorch(scores, top_k, top_p)
        position = (seq_lens - 1).clamp_min(0).to(torch.int64)
        words = torch.arange(logits.shape[1], dtype=torch.int32, device=logits.device)
        noise = (gumbel64 if fp64 else gumbel)(take(wishes.seeds, state), position, words)
        drawn.tokens.copy_((noise * ~greedy + scores).argmax(dim=-1, keepdim=True))
    else:
        drawn.tokens.copy_(logits.argmax(dim=-1, keepdim=True))
    # A prompt has a token at least; the dump row's length is 0.
    done = seq_lens >= take(wishes.prefill_len, state).clamp_min(1)
    drawn.sampled.copy_(done)


@region
def feed_back(
    state: torch.Tensor,
    query_start_loc: torch.Tensor,
    drawn: Drawn,
    computed: torch.Tensor,
    last_sampled: torch.Tensor,
    counts: torch.Tensor,
    token_ids: torch.Tensor,
    total: torch.Tensor,
) -> None:
    """Append the drawn tokens to their requests; see :func:`post_update` for the tensors."""
    post_update(
        state,
        computed,
        last_sampled,
        counts,
        counts.stride(0),
        drawn.tokens,
        drawn.tokens.stride(0),
        drawn.sampled,
        drawn.rejected,
        query_start_loc,
        token_ids,
        token_ids.stride(0),
        total,
    )


def is_simple(wishes: SamplingParams) -> bool:
    """Whether a request asks for nothing but temperature, top-k, top-p and a seed."""
    return (
        wishes.logprobs is None
        and not wishes.logprob_token_ids
        and wishes.repetition_penalty == 1.0
        and not wishes.frequency_penalty
        and not wishes.presence_penalty
        and not wishes.min_p
        and not wishes.min_tokens
        and not wishes.logit_bias
        and not wishes.allowed_token_ids
        and not wishes.bad_words
        and wishes.thinking_token_budget is None
        and wishes.structured_outputs is None
    )


class StepSampler:
    """Samples the rows whose hidden states a forward has kept, and feeds the tokens back."""

    def __init__(self, runner: HpuModelRunner, sampler: Sampler, inputs: StepInputs) -> None:
        self._runner, self._sampler, self._inputs = runner, sampler, inputs
        rows, device = runner.max_num_reqs, runner.device
        self._drawn = Drawn(
            torch.zeros(rows, 1, dtype=torch.int64, device=device),
            torch.zeros(rows, dtype=torch.int32, device=device),
            torch.zeros(rows, dtype=torch.int32, device=device),
        )
        self._special = np.zeros(rows, dtype=np.bool_)
        self._copied: torch.cuda.Event | None = None
        self._ready: set[tuple[int, Draw]] = set()
        # The largest and most able first.
        buckets = reversed(runner.plan.row_buckets)
        self._pending = [(count, draw) for count in buckets for draw in reversed(Draw)]

    def add_request(self, state_row: int, wishes: SamplingParams) -> None:
        """Remember whether a new request can be sampled here."""
        self._special[state_row] = not is_simple(wishes)

    def draw_of(self, batch: InputBatch) -> Draw | None:
        """The draw that the step's requests need; None when a request needs vLLM's sampler."""
        rows = batch.idx_mapping_np[: len(batch.req_ids)]
        if self._special[rows].any():
            return None
        states = self._sampler.sampling_states
        hot = rows[states.temperature.np[rows] != 0]
        if not len(hot):
            return Draw.GREEDY
        if (states.top_k.np[hot] != states.vocab_size).any() or (states.top_p.np[hot] != 1.0).any():
            return Draw.FILTERED
        return Draw.RANDOM

    def sample(self, rows: int, draw: Draw) -> SamplerOutput:
        """One launch: logits and tokens of the first ``rows`` rows.

        Launches the smallest graph that is compiled and can do it; without warm-up its own.
        """
        self._wait_for_copy()
        self._launch_sample(*min(self._covering(rows, draw), default=(rows, draw)))
        drawn = self._first(rows)
        return SamplerOutput(
            sampled_token_ids=drawn.tokens,
            logprobs_tensors=None,
            num_nans=None,
            num_sampled=drawn.sampled,
            num_rejected=drawn.rejected,
        )

    def feed_back(self, drawn: Drawn) -> None:
        """One launch: append the tokens to their requests."""
        rows = drawn.tokens.shape[0]
        mine = self._first(rows)
        if drawn.tokens.data_ptr() != mine.tokens.data_ptr():
            self._wait_for_copy()
            for source, target in zip(drawn, mine, strict=True):
                target.copy_(source)
        self._launch_feedback(min((r for r, _ in self._covering(rows)), default=rows))

    def keep_until(self, copied: torch.cuda.Event) -> None:
        """The next draw must not start before ``copied``: the host still reads this one's."""
        self._copied = copied

    def warm_up_one(self) -> bool:
        """Compile the next graphs, between steps and on padding rows; False when none is left.

        The first ones can do any step's work.
        """
        if not self._pending:
            return False
        rows, draw = self._pending.pop(0)
        # The last step's requests must not get a second token.
        self._inputs.rows.state.fill_(self._runner.dump_row)
        self._inputs.rows.seq_lens.zero_()
        self._inputs.rows.query_start_loc.zero_()
        self._wait_for_copy()
        self._launch_sample(rows, draw)
        self._launch_feedback(rows)
        self._ready.add((rows, draw))
        return True

    def _covering(self, rows: int, draw: Draw = Draw.GREEDY) -> Iterator[tuple[int, Draw]]:
        return (case for case in self._ready if case[0] >= rows and case[1] >= draw)

    def _launch_sample(self, rows: int, draw: Draw) -> None:
        self._runner.launcher.launch(("sample", rows, draw), lambda: self._sample(rows, draw))

    def _launch_feedback(self, rows: int) -> None:
        self._runner.launcher.launch(("feedback", rows), lambda: self._feed_back(rows))

    def _first(self, rows: int) -> Drawn:
        return Drawn(*(tensor[:rows] for tensor in self._drawn))

    def _wait_for_copy(self) -> None:
        if self._copied is not None:
            self._runner.main_stream.wait_event(self._copied)
            self._copied = None

    def _sample(self, rows: int, draw: Draw) -> None:
        inputs, requests = self._inputs, self._runner.req_states
        states = self._sampler.sampling_states
        draw_tokens(
            self._runner.model.compute_logits(inputs.hidden[:rows]),
            inputs.rows.state[:rows],
            inputs.rows.seq_lens[:rows],
            Wishes(
                states.temperature.gpu,
                states.top_k.gpu,
                states.top_p.gpu,
                states.seeds.gpu,
                requests.prefill_len.gpu,
            ),
            self._first(rows),
            draw is not Draw.GREEDY,
            draw is Draw.FILTERED,
            self._sampler.use_fp64_gumbel,
        )

    def _feed_back(self, rows: int) -> None:
        inputs, requests = self._inputs, self._runner.req_states
        feed_back(
            inputs.rows.state[:rows],
            inputs.rows.query_start_loc,
            self._first(rows),
            requests.num_computed_tokens.gpu,
            requests.last_sampled_tokens,
            self._sampler.penalties_state.output_bin_counts,
            requests.all_token_ids.gpu,
            requests.total_len.gpu,
        )


def step_sampler(runner: HpuModelRunner) -> StepSampler | None:
    """The sampler of an engine's simple steps; None where vLLM's sampler takes every step.

    That is with custom logits processors, watermarks, adapters (their logits depend on the adapters
    of the step) and what vLLM records beside the tokens, and where inputs are not derived.
    """
    sampler = runner.sampler
    if (
        runner.step_inputs is None
        or sampler is None
        or type(sampler) is not Sampler
        or len(sampler.logits_processors) != _VLLM_PROCESSORS
        or sampler.trace_replay_state is not None
        or sampler.return_sampling_mask
        or sampler.compute_nans
        or runner.batch_sharder is not None
        or runner.lora_config is not None
    ):
        return None
    return StepSampler(runner, sampler, runner.step_inputs)
