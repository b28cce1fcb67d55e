"""Log-probabilities of prompts, by one graph of one shape.

vLLM scores a step's tokens in as many rows as there are, a shape of its own for every prompt. Here
a prompt is scored in pieces of one size, and the results are copied to their places on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vllm.sampling_params import SamplingParams
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.sample.prompt_logprob import PromptLogprobsWorker

from vllm_hpu.graphs.mode import Mode
from vllm_hpu.graphs.region import region
from vllm_hpu.kernels.rows import take
from vllm_hpu.sample.sampling_graph import Scored, score

if TYPE_CHECKING:
    from vllm_hpu.runner.model_runner import HpuModelRunner
    from vllm_hpu.step.inputs import StepInputs

LogitsOf = Callable[[torch.Tensor], torch.Tensor]

PIECE = 128
"""Prompt tokens that are scored at once."""


@region
def score_tokens(
    logits: torch.Tensor,
    places: torch.Tensor,
    token_ids: torch.Tensor,
    scored: Scored,
    normalised: bool,
) -> None:
    """Score by ``logits`` [n, V] the tokens at flat ``places`` [n] of ``token_ids``."""
    score(logits, take(token_ids.view(-1), places).to(torch.int64), scored, normalised)


class PromptScoresOfAdapters(PromptLogprobsWorker):
    """vLLM's way, with the adapters of the tokens that are scored.

    vLLM computes logits of whatever tokens it wants scored, of which the adapters know nothing.
    So it is handed the numbers of the step's tokens in the place of their hidden states.
    """

    def __init__(self, runner: HpuModelRunner) -> None:
        mode = runner.model_config.logprobs_mode
        super().__init__(runner.max_num_reqs, runner.device, mode)
        self._runner = runner
        self._numbers = torch.arange(runner.max_num_tokens, device=runner.device)

    def compute_prompt_logprobs(
        self, logits_fn: LogitsOf, hidden_states: torch.Tensor, *args: Any
    ) -> dict[str, LogprobsTensors]:
        logits_of = self._by_number(logits_fn, hidden_states)
        return super().compute_prompt_logprobs(logits_of, self._numbers, *args)

    def compute_prompt_token_id_logprobs(
        self, logits_fn: LogitsOf, hidden_states: torch.Tensor, *args: Any
    ) -> dict[str, torch.Tensor]:
        logits_of = self._by_number(logits_fn, hidden_states)
        return super().compute_prompt_token_id_logprobs(logits_of, self._numbers, *args)

    def _by_number(self, logits_fn: LogitsOf, hidden_states: torch.Tensor) -> LogitsOf:
        """The logits of the step's tokens with the given numbers, [n]."""

        def logits_of(tokens: torch.Tensor) -> torch.Tensor:
            with self._runner.logits_of(tokens):
                return logits_fn(take(hidden_states, tokens))

        return logits_of


class PromptScores(PromptScoresOfAdapters):
    """Scores prompts for up to ``most`` likely tokens; who wants more gets vLLM's way."""

    takes_room = True

    def __init__(self, runner: HpuModelRunner, inputs: StepInputs, most: int) -> None:
        super().__init__(runner)
        self._hidden, self._most = inputs.keep_every(), most
        self._normalised = self.logprobs_mode in ("raw_logprobs", "processed_logprobs")
        # Row 0: the tokens to score from; row 1: where the tokens that follow are.
        self._piece = torch.zeros(2, PIECE, dtype=torch.int64, device=runner.device)
        self._scored = Scored.zeros(PIECE, most, runner.device)
        self._width: dict[str, int] = {}
        self._results: dict[str, LogprobsTensors] = {}
        self._pending = True

    def add_request(self, req_id: str, req_idx: int, sampling_params: SamplingParams) -> None:
        super().add_request(req_id, req_idx, sampling_params)
        wanted = sampling_params.prompt_logprobs
        if wanted is not None and 0 <= wanted <= self._most:
            self._width[req_id] = 1 + wanted
            # Not for vLLM to score.
            self.uses_prompt_logprobs[req_idx] = False

    def remove_request(self, req_id: str) -> None:
        super().remove_request(req_id)
        self._width.pop(req_id, None)
        self._results.pop(req_id, None)

    def compute_prompt_logprobs(
        self,
        logits_fn: LogitsOf,
        hidden_states: torch.Tensor,
        input_batch: InputBatch,
        all_token_ids: torch.Tensor,
        num_computed_tokens: torch.Tensor,
        prompt_lens: np.ndarray,
    ) -> dict[str, LogprobsTensors]:
        done = super().compute_prompt_logprobs(
            logits_fn,
            hidden_states,
            input_batch,
            all_token_ids,
            num_computed_tokens,
            prompt_lens,
        )
        for row, req_id in enumerate(input_batch.req_ids):
            if req_id in self._width:
                state = int(input_batch.idx_mapping_np[row])
                result = self._score_row(input_batch, row, state, int(prompt_lens[state]))
                if result is not None:
                    done[req_id] = result
        return done

    def warm_up_one(self) -> bool:
        """Compile the graph; False when that is done."""
        if not self._pending:
            return False
        self._pending = False
        self.launch_first()
        return True

    def launch_first(self) -> None:
        """Score a piece of nobody's prompt."""
        self._launch()

    def _score_row(
        self, batch: InputBatch, row: int, state: int, prompt_len: int
    ) -> LogprobsTensors | None:
        """Score the row's tokens of this step; all of the prompt's when it ends."""
        begin = int(batch.num_computed_prefill_tokens_np[row])
        # A request that was preempted behind its prompt has been scored before.
        if begin >= prompt_len or prompt_len < batch.prefill_len_np[row]:
            return None
        end = begin + int(batch.num_scheduled_tokens[row])
        req_id = batch.req_ids[row]
        if req_id not in self._results:
            rows = Scored.zeros(prompt_len - 1 - begin, self._most, torch.device("cpu"))
            self._results[req_id] = LogprobsTensors(*rows)
        result = self._results[req_id]
        # The prompt's last token is followed by the first sampled one, which is not scored.
        last = min(end, prompt_len - 1)
        before = prompt_len - 1 - len(result.selected_token_ranks)
        token = int(batch.query_start_loc_np[row]) - begin
        for start in range(begin, last, PIECE):
            positions = np.arange(start, min(start + PIECE, last))
            self._score(token + positions, state, positions + 1)
            place = slice(start - before, start - before + len(positions))
            for target, source in zip(result[:3], self._scored, strict=True):
                target[place].copy_(source[: len(positions)], non_blocking=True)
        if end < prompt_len:
            return None
        width = self._width.pop(req_id)
        del self._results[req_id]
        if before == prompt_len - 1:
            return None
        return LogprobsTensors(
            result.logprob_token_ids[:, :width],
            result.logprobs[:, :width],
            result.selected_token_ranks,
        )

    def _score(self, tokens: np.ndarray, state: int, following: np.ndarray) -> None:
        piece = np.zeros((2, PIECE), dtype=np.int64)
        piece[0, : len(tokens)] = tokens
        piece[1, : len(tokens)] = state * self._runner.max_model_len + following
        async_tensor_h2d(piece, out=self._piece)
        self._launch()

    def _launch(self) -> None:
        self._runner.launcher.launch("prompt scores", self._score_piece)

    def _score_piece(self) -> None:
        runner = self._runner
        tokens = self._piece[0]
        # A captured graph serves steps with and without adapters.
        captured = runner.launcher.mode is Mode.GRAPHS
        with (
            runner.adapters_on(True) if captured else nullcontext(),
            runner.logits_of(tokens),
        ):
            logits = runner.model.compute_logits(take(self._hidden, tokens))
        token_ids = runner.req_states.all_token_ids.gpu
        score_tokens(logits, self._piece[1], token_ids, self._scored, self._normalised)
