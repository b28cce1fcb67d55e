"""Sampling and feedback of a step as one launch each.

vLLM's sampler decides on the host, step by step, which operators to launch. Here the decision is
made once per step among five kinds of draw (``draws.py``), each with a graph per row bucket. Steps
with what no graph can do, which is rare (``Asks.MORE``), take vLLM's sampler, and only their
feedback is one launch. So do special ones in eager mode, where there is no graph and whatever
nobody asks for is best left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import torch
from vllm.config.model import PROCESSED_LOGPROBS_MODES
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.output import GrammarOutput
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.sample.output import SamplerOutput
from vllm.v1.worker.gpu.sample.sampler import Sampler

from vllm_hpu.graphs.mode import Mode
from vllm_hpu.graphs.region import region
from vllm_hpu.kernels.inputs import post_update
from vllm_hpu.sample.grammar_bitmask import GrammarMasks
from vllm_hpu.sample.logits_processors import Special, special_of
from vllm_hpu.sample.sampling_graph import (
    DRAWS,
    GREEDY,
    Draw,
    Drawn,
    DrawRows,
    Rules,
    Scored,
    Wishes,
    draw_tokens,
)

if TYPE_CHECKING:
    from vllm_hpu.runner.model_runner import HpuModelRunner
    from vllm_hpu.step.inputs import StepInputs

MOST_SCORES = 20
"""Most likely tokens that a graph scores, vLLM's default of ``--max-logprobs``."""

_VLLM_PROCESSORS = 3
"""Logits processors that vLLM always has: bias, penalties, bad words. More are the user's."""


class Asks(IntEnum):
    """What a request asks of its draws."""

    NOTHING = 0  # but temperature, top-k, top-p and a seed
    SPECIAL = 1
    MORE = 2  # than a graph can do


def asks(wishes: SamplingParams, most_scores: int) -> Asks:
    """What a request asks of its draws, with graphs that score ``most_scores`` tokens."""
    scores = wishes.logprobs or 0
    if (
        wishes.logprob_token_ids
        or wishes.thinking_token_budget is not None
        or not 0 <= scores <= most_scores
    ):
        return Asks.MORE
    simple = (
        wishes.logprobs is None
        and wishes.repetition_penalty == 1.0
        and not wishes.frequency_penalty
        and not wishes.presence_penalty
        and not wishes.min_p
        and not wishes.min_tokens
        and not wishes.logit_bias
        and not wishes.allowed_token_ids
        and not wishes.bad_words
        and wishes.structured_outputs is None
    )
    return Asks.NOTHING if simple else Asks.SPECIAL


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


def most_scores(runner: HpuModelRunner) -> int:
    """Most likely tokens that the engine's graphs score."""
    allowed = runner.model_config.max_logprobs
    return min(MOST_SCORES, runner.vocab_size, allowed if allowed >= 0 else MOST_SCORES)


class StepSampler:
    """Samples the rows whose hidden states a forward has kept, and feeds the tokens back.

    Attributes:
        drawn: the last step's tokens, of all rows.
    """

    takes_room = True

    def __init__(self, runner: HpuModelRunner, sampler: Sampler, inputs: StepInputs) -> None:
        self._runner, self._sampler, self._inputs = runner, sampler, inputs
        rows, width, device = runner.max_num_reqs, inputs.width, runner.device
        vocab_size = runner.vocab_size
        self._most_scores = most_scores(runner)
        self.drawn = Drawn(
            torch.zeros(rows, width, dtype=torch.int64, device=device),
            torch.zeros(rows, dtype=torch.int32, device=device),
            torch.zeros(rows, dtype=torch.int32, device=device),
        )
        self._scored = Scored.zeros(rows * width, self._most_scores, device)
        self._masks = GrammarMasks(rows, width, vocab_size, device)
        self._special = special_of(
            sampler, runner.req_states, self._masks.mask, self._masks.acceptable
        )
        verifier = runner.rejection_sampler
        self._rules = Rules(
            fp64=sampler.use_fp64_gumbel,
            by_block=verifier is not None and verifier.use_block_verification,
            raw=sampler.logprobs_mode not in PROCESSED_LOGPROBS_MODES,
            normalised=sampler.logprobs_mode in ("raw_logprobs", "processed_logprobs"),
        )
        self._asks = np.zeros(rows, dtype=np.int8)
        self._copied: torch.cuda.Event | None = None
        self._ready: set[tuple[int, Draw]] = set()
        # The largest and most able first. Special draws are rare: every other size will do.
        self._pending = [
            (count, draw)
            for place, count in enumerate(reversed(runner.plan.row_buckets))
            for draw in DRAWS
            if place % 2 == 0 or not draw.special
        ]

    def add_request(self, state_row: int, wishes: SamplingParams) -> None:
        """Remember what a new request asks for."""
        self._asks[state_row] = asks(wishes, self._most_scores)

    def draw_of(self, batch: InputBatch, grammar: GrammarOutput | None) -> Draw | None:
        """The draw that the step's requests need; None when no graph can do it."""
        rows = batch.idx_mapping_np[: len(batch.req_ids)]
        most = self._asks[rows].max(initial=Asks.NOTHING)
        special = most == Asks.SPECIAL or grammar is not None
        if most == Asks.MORE or (special and self._runner.launcher.mode is Mode.EAGER):
            return None
        states = self._sampler.sampling_states
        hot = rows[states.temperature.np[rows] != 0]
        filtered = (states.top_k.np[hot] != states.vocab_size) | (states.top_p.np[hot] != 1.0)
        return Draw(special, len(hot) > 0, bool(filtered.any()))

    def sample(self, batch: InputBatch, draw: Draw, grammar: GrammarOutput | None) -> SamplerOutput:
        """One launch: logits and tokens of the step's rows.

        Launches the smallest graph that is compiled and can do it; without warm-up its own.
        """
        rows = batch.num_reqs
        self._wait_for_copy()
        size, able = self._graph_for(rows, draw)
        if able.special:
            # Also where nobody asks: the last step's grammars must not hold.
            self._masks.stage(batch, grammar)
        self._launch_sample(size, able)
        drawn = self._first(rows)
        wanted = self._sampler.sampling_states.num_logprobs[batch.idx_mapping_np].max() >= 0
        return SamplerOutput(
            sampled_token_ids=drawn.tokens,
            logprobs_tensors=self._scores(rows) if wanted else None,
            num_nans=None,
            num_sampled=drawn.sampled,
            num_rejected=drawn.rejected,
        )

    def feed_back(self, drawn: Drawn) -> None:
        """One launch: append the tokens to their requests."""
        rows, width = drawn.tokens.shape
        mine = self._first(rows)
        if drawn.tokens.data_ptr() != mine.tokens.data_ptr():
            self._wait_for_copy()
            mine.tokens[:, :width].copy_(drawn.tokens)
            mine.sampled.copy_(drawn.sampled)
            mine.rejected.copy_(drawn.rejected)
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
        self._launch_blank(rows, draw)
        self._ready.add((rows, draw))
        return True

    def launch_first(self) -> None:
        """Draw from all rows with all that can be asked for."""
        self._launch_blank(*self._pending[0])

    def _launch_blank(self, rows: int, draw: Draw) -> None:
        # The last step's requests must not get a second token.
        self._inputs.blank()
        self._wait_for_copy()
        self._launch_sample(rows, draw)
        self._launch_feedback(rows)

    def _covering(self, rows: int, draw: Draw = GREEDY) -> Iterator[tuple[int, Draw]]:
        return (case for case in self._ready if case[0] >= rows and case[1].can(draw))

    def _graph_for(self, rows: int, draw: Draw) -> tuple[int, Draw]:
        """The smallest graph that is ready, and of these the least able one."""
        own = next(able for able in reversed(DRAWS) if able.can(draw))
        return min(self._covering(rows, draw), default=(rows, own))

    def _launch_sample(self, rows: int, draw: Draw) -> None:
        self._runner.launcher.launch(("sample", rows, draw), lambda: self._sample(rows, draw))

    def _launch_feedback(self, rows: int) -> None:
        self._runner.launcher.launch(("feedback", rows), lambda: self._feed_back(rows))

    def _first(self, rows: int) -> Drawn:
        return Drawn(*(tensor[:rows] for tensor in self.drawn))

    def _first_scored(self, rows: int) -> Scored:
        return Scored(*(tensor[: rows * self._inputs.width] for tensor in self._scored))

    def _scores(self, rows: int) -> LogprobsTensors:
        """All columns, whatever is asked for: the reader takes as many as its request wants."""
        width = self._inputs.width
        starts = list(range(0, (rows + 1) * width, width)) if width > 1 else None
        return LogprobsTensors(*self._first_scored(rows), cu_num_generated_tokens=starts)

    def _wait_for_copy(self) -> None:
        if self._copied is not None:
            self._runner.main_stream.wait_event(self._copied)
            self._copied = None

    def _sample(self, rows: int, draw: Draw) -> None:
        runner, inputs = self._runner, self._inputs
        states = self._sampler.sampling_states
        # A captured graph serves steps with and without adapters.
        captured = runner.launcher.mode is Mode.GRAPHS
        places = rows * inputs.width
        with (
            runner.adapters_on(True) if captured else nullcontext(),
            runner.logits_of(inputs.rows.logit_token[:places]),
        ):
            logits = runner.model.compute_logits(inputs.hidden[:places])
        draw_tokens(
            logits,
            DrawRows(
                inputs.rows.state[:rows],
                inputs.rows.seq_lens[:rows],
                inputs.rows.logits[:rows],
                inputs.draft_tokens,
                getattr(runner.speculator, "draft_logits", None),
            ),
            Wishes(
                states.temperature.gpu,
                states.top_k.gpu,
                states.top_p.gpu,
                states.seeds.gpu,
                runner.req_states.prefill_len.gpu,
            ),
            self._special_of(rows) if draw.special else None,
            self._first(rows),
            self._first_scored(rows) if draw.special else None,
            draw,
            self._rules,
        )

    def _special_of(self, rows: int) -> Special:
        return self._special._replace(
            mask=self._masks.mask[: rows * self._inputs.width],
            acceptable=self._masks.acceptable[:rows],
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
    """The sampler of an engine's steps; None where vLLM's sampler takes every step.

    That is with custom logits processors, watermarks, drafts that are accepted by a fixed rate,
    what vLLM records beside the tokens, and where inputs are not derived.
    """
    sampler, inputs = runner.sampler, runner.step_inputs
    if inputs is None or sampler is None or not samples_in_graphs(runner):
        return None
    return StepSampler(runner, sampler, inputs)


def samples_in_graphs(runner: HpuModelRunner) -> bool:
    """Whether graphs know all that the engine's sampler does; see :func:`step_sampler`."""
    sampler, verifier = runner.sampler, runner.rejection_sampler
    return (
        type(sampler) is Sampler
        and len(sampler.logits_processors) == _VLLM_PROCESSORS
        and sampler.trace_replay_state is None
        and not sampler.return_sampling_mask
        and not sampler.compute_nans
        and runner.batch_sharder is None
        and (verifier is None or verifier.synthetic_conditional_rates is None)
    )
