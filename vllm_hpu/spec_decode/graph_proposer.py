"""Prompt lookup for a step's rows as one launch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from vllm_hpu.graphs.region import region
from vllm_hpu.kernels.rows import take
from vllm_hpu.spec_decode.ngram import NgramSpeculator, lookup, window_for, windows

if TYPE_CHECKING:
    from vllm_hpu.runner.model_runner import HpuModelRunner
    from vllm_hpu.sample.graph_sampler import StepSampler
    from vllm_hpu.step.inputs import StepInputs

__all__ = ["StepProposer"]


class Source(NamedTuple):
    """What drafts are proposed from.

    state         int64 [R], row of the request states
    sampled       int32 [R], tokens the row has got in this step
    token_ids     int32 [S, L], all tokens of each request
    total         int32 [S], how many those are
    last_sampled  int64 [S, 1]
    """

    state: torch.Tensor
    sampled: torch.Tensor
    token_ids: torch.Tensor
    total: torch.Tensor
    last_sampled: torch.Tensor


@region
def propose(
    source: Source,
    of_request: torch.Tensor,
    of_row: torch.Tensor,
    window: int,
    min_n: int,
    max_n: int,
) -> None:
    """Write drafts to ``of_request`` [S, K] and ``of_row`` [R, K], int64.

    A row without a match, or still in its prompt, gets its last sampled token throughout.
    """
    tokens = take(source.token_ids[:, :window], source.state)
    lengths = take(source.total, source.state)
    drafts, found = lookup(tokens, lengths, min_n, max_n, of_row.shape[1])
    found = found & (source.sampled > 0)[:, None]
    fallback = take(source.last_sampled, source.state)
    of_row.copy_(torch.where(found, drafts.to(torch.int64), fallback))
    of_request.index_copy_(0, source.state, of_row)


class StepProposer:
    """Proposes for all rows at once, by the smallest compiled graph whose window is long enough."""

    takes_room = True

    def __init__(
        self,
        runner: HpuModelRunner,
        speculator: NgramSpeculator,
        inputs: StepInputs,
        sampler: StepSampler,
    ) -> None:
        self._runner, self._speculator = runner, speculator
        self._inputs, self._sampler = inputs, sampler
        self._ready: set[int] = set()
        self._pending = list(windows(speculator.max_model_len))

    def __call__(self, longest: int, rows: int) -> torch.Tensor:
        """Drafts int64 ``[rows, K]``; ``longest`` bounds the tokens of a row."""
        runner = self._runner
        wanted = window_for(longest, self._speculator.max_model_len)
        # The host may still read the last step's.
        runner.main_stream.wait_event(runner.draft_tokens_handler.copy_event)
        self._launch(min((size for size in self._ready if size >= wanted), default=wanted))
        return self._inputs.drafts.of_row[:rows]

    def warm_up_one(self) -> bool:
        """Compile the graph of the next window, the longest first; False when none is left."""
        if not self._pending:
            return False
        window = self._pending.pop()
        self._launch_blank(window)
        self._ready.add(window)
        return True

    def launch_first(self) -> None:
        """Propose for no row in the longest window."""
        self._launch_blank(self._pending[-1])

    def _launch_blank(self, window: int) -> None:
        self._inputs.blank()
        self._launch(window)

    def _launch(self, window: int) -> None:
        self._runner.launcher.launch(("propose", window), lambda: self._propose(window))

    def _propose(self, window: int) -> None:
        requests, speculator, drafts = (
            self._runner.req_states,
            self._speculator,
            self._inputs.drafts,
        )
        propose(
            Source(
                self._inputs.rows.state,
                self._sampler.drawn.sampled,
                requests.all_token_ids.gpu,
                requests.total_len.gpu,
                requests.last_sampled_tokens,
            ),
            drafts.of_request,
            drafts.of_row,
            window,
            speculator.min_n,
            speculator.max_n,
        )
