"""The inputs of a step, from one copy of integers to everything the forward reads.

vLLM prepares a step's inputs by a dozen kernels before the forward. Here the host sends only what
it alone knows, the state row of each batch row and where its tokens start, and the rest is derived
as the first part of the forward, so that it belongs to the forward's graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.attention.backends.utils import PAD_SLOT_ID
from vllm.v1.worker.gpu.input_batch import InputBatch

from vllm_hpu.graphs.region import region
from vllm_hpu.kernels.rows import lengths_of, lookup, rows_of, take
from vllm_hpu.step.draft_table import DraftTable

if TYPE_CHECKING:
    from vllm.v1.worker.gpu.model_runner import BatchReqState

    from vllm_hpu.runner.model_runner import HpuModelRunner


class RowInputs(NamedTuple):
    """Persistent tensors with one entry per batch row, R rows.

    A row has a place for the logits of its next token and of what follows each draft, W in all.

    state            int64 [R], row of the request states
    query_start_loc  int32 [R + 1]
    seq_lens         int32 [R]
    logits           int32 [R], how many of its places a row uses; 1 for padding rows
    logit_token      int64 [R * W], the token of each place; any token where there is none
    """

    state: torch.Tensor
    query_start_loc: torch.Tensor
    seq_lens: torch.Tensor
    logits: torch.Tensor
    logit_token: torch.Tensor


class TokenInputs(NamedTuple):
    """Persistent tensors with one entry per token, T tokens.

    input_ids   int32 [T]
    positions   int64 [T], 0 for padding tokens
    is_padding  bool [T]
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    is_padding: torch.Tensor


class CacheTables(NamedTuple):
    """Block tables and slots, one entry per group of the KV cache.

    states   int32 [S, blocks] each, the block tables of all requests
    rows     int32 [R, blocks] each, those of the step's rows, written
    slots    int64 [groups, >= T], written
    sizes    tokens of a block; 0 for groups without slots
    """

    states: list[torch.Tensor]
    rows: list[torch.Tensor]
    slots: torch.Tensor
    sizes: tuple[int, ...]


class Known(NamedTuple):
    """What is known of each request, by row of the request states.

    computed   int32 [S], tokens that are in the cache
    total      int32 [S], tokens of the prompt and sampled ones
    token_ids  int32 [S, L], these tokens: token i of a row is the one at its position
    drafts     int64 [S, K], what was proposed to follow them; None without speculation
    """

    computed: torch.Tensor
    total: torch.Tensor
    token_ids: torch.Tensor
    drafts: torch.Tensor | None


@region
def derive_inputs(
    step: torch.Tensor,
    known: Known,
    rows: RowInputs,
    tokens: TokenInputs,
    tables: CacheTables,
) -> None:
    """Fill all inputs of the forward from the step's integers and the request states.

    Args:
        step: int32 ``[3 * R + 1]``: the state row of each batch row, then where its tokens start,
            then how many of them have logits.
    """
    count, length = rows.state.shape[0], tokens.positions.shape[0]
    state, starts = step[:count].to(torch.int64), step[count : 2 * count + 1]
    logits = step[2 * count + 1 :]
    computed = take(known.computed, state)
    rows.state.copy_(state)
    rows.query_start_loc.copy_(starts)
    rows.seq_lens.copy_(computed + lengths_of(starts, count))
    rows.logits.copy_(logits)
    place = torch.arange(
        rows.logit_token.shape[0] // count, dtype=starts.dtype, device=starts.device
    )
    last = starts[1:, None] - 1
    first = starts[1:, None] - logits[:, None]
    rows.logit_token.copy_(torch.minimum(first + place, last).clamp_min(0).view(-1))

    row = rows_of(starts, count, length)
    real = row < count
    owner = row.clamp_max(count - 1)
    offset = take(computed - starts[:-1], owner)
    position = torch.arange(length, dtype=torch.int64, device=step.device) + offset
    position = position.masked_fill(~real, 0)
    of_token = take(state, owner)
    tokens.positions.copy_(position)
    input_ids = lookup(known.token_ids, of_token, position)
    if known.drafts is not None:
        ahead = position - take(known.total, of_token)
        # A draft that nobody has proposed is -1: any token will do, it is rejected.
        draft = lookup(known.drafts, of_token, ahead).clamp_min(0).to(input_ids.dtype)
        input_ids = torch.where((ahead >= 0) & real, draft, input_ids)
    tokens.input_ids.copy_(input_ids)
    tokens.is_padding.copy_(~real)

    for group, size in enumerate(tables.sizes):
        tables.rows[group].copy_(take(tables.states[group], state))
        slots = tables.slots[group, :length]
        if not size:
            slots.fill_(PAD_SLOT_ID)
            continue
        column = torch.div(position, size, rounding_mode="floor")
        block = lookup(tables.states[group], of_token, column)
        # position - column * size is the offset in the block.
        slots.copy_(((block - column) * size + position).masked_fill(~real, PAD_SLOT_ID))


Keeper = Callable[[torch.Tensor, list[torch.Tensor] | None], None]


class StepInputs:
    """Stages a step on the host and derives its inputs on the device.

    For engines whose forward needs nothing between the two, see :func:`is_plain`.

    Attributes:
        rows: the persistent tensors of the batch rows.
        width: places for logits per row, W: one, and one per draft token.
        hidden: ``[R * W, hidden size]``, the hidden state of each place's token after a forward.
        every_hidden: ``[T, hidden size]``, those of all tokens of the step; None until
            :meth:`keep_every` is called.
        keepers: what else keeps something of a forward's result.
        drafts: where draft tokens are; without columns if there is no speculation.
    """

    def __init__(self, runner: HpuModelRunner) -> None:
        self._runner = runner
        count, device, buffers = runner.max_num_reqs, runner.device, runner.input_buffers
        self.width = runner.decode_query_len
        places = count * self.width
        self._step = torch.zeros(3 * count + 1, dtype=torch.int32, device=device)
        self.rows = RowInputs(
            torch.full((count,), runner.dump_row, dtype=torch.int64, device=device),
            buffers.query_start_loc,
            buffers.seq_lens,
            torch.ones(count, dtype=torch.int32, device=device),
            torch.zeros(places, dtype=torch.int64, device=device),
        )
        # Without draft tokens these never change: one row of logits per batch row.
        self._logit_starts = torch.arange(count + 1, dtype=torch.int32, device=device)
        self._place_in_row = torch.zeros(count, dtype=torch.int32, device=device)
        size = runner.model_config.get_hidden_size()
        self.hidden = torch.zeros(places, size, dtype=runner.dtype, device=device)
        self.every_hidden: torch.Tensor | None = None
        self.keepers: list[Keeper] = []
        self.drafts = DraftTable(count, self.width - 1, device)

    def stage(
        self, state_rows: np.ndarray, lengths: np.ndarray, logits: np.ndarray | int = 1
    ) -> np.ndarray:
        """Send a step's integers: state row, new tokens and logits of each row, [n] each.

        Returns the starts, int32 [R + 1], on the host.
        """
        count, used = self._runner.max_num_reqs, len(state_rows)
        step = np.ones(3 * count + 1, dtype=np.int32)
        step[:used] = state_rows
        step[used:count] = self._runner.dump_row
        starts = step[count : 2 * count + 1]
        starts[0] = 0
        np.cumsum(lengths, out=starts[1 : used + 1])
        starts[used + 1 :] = starts[used]
        step[2 * count + 1 : 2 * count + 1 + used] = logits
        async_tensor_h2d(step, out=self._step)
        return starts

    def stage_nothing(self) -> None:
        """Stage a step of padding rows only."""
        nobody = np.zeros(0, dtype=np.int32)
        self.stage(nobody, nobody)

    @property
    def draft_tokens(self) -> torch.Tensor | None:
        """int64 ``[S, K]``, by row of the request states; None without speculation."""
        return self.drafts.of_request if self.width > 1 else None

    def blank(self) -> None:
        """Leave padding rows only: nothing that is launched next concerns the last step's."""
        count, dump = self._runner.max_num_reqs, self._runner.dump_row
        # Copies, which are no launches.
        async_tensor_h2d(np.full(count, dump, dtype=np.int64), out=self.rows.state)
        async_tensor_h2d(np.zeros(count, dtype=np.int32), out=self.rows.seq_lens[:count])
        starts = self.rows.query_start_loc
        async_tensor_h2d(np.zeros(starts.shape[0], dtype=np.int32), out=starts)

    def derive(self, tokens: int) -> None:
        """Fill the inputs of a forward of ``tokens`` padded tokens; part of the forward."""
        runner = self._runner
        buffers, tables, requests = runner.input_buffers, runner.block_tables, runner.req_states
        enabled = tables._slot_mapping_enabled
        derive_inputs(
            self._step,
            Known(
                requests.num_computed_tokens.gpu,
                requests.total_len.gpu,
                requests.all_token_ids.gpu,
                self.draft_tokens,
            ),
            self.rows,
            TokenInputs(
                buffers.input_ids[:tokens],
                buffers.positions[:tokens],
                buffers.is_padding[:tokens],
            ),
            CacheTables(
                [table.gpu for table in tables.block_tables],
                tables.input_block_tables,
                tables.slot_mappings,
                tuple(
                    size if on else 0 for size, on in zip(tables.block_sizes, enabled, strict=True)
                ),
            ),
        )

    def keep_every(self) -> torch.Tensor:
        """Keep the hidden states of all tokens from now on; before the first forward."""
        runner = self._runner
        tokens = max(runner.plan.max_tokens, runner.max_num_tokens)
        self.every_hidden = self.hidden.new_zeros(tokens, self.hidden.shape[1])
        return self.every_hidden

    def keep(self, output: torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]) -> None:
        """Keep a forward's result ``[T, H]``, and what is sampled from; part of the forward.

        With it may come the hidden states of some layers, which EAGLE 3 reads.
        """
        hidden, of_layers = output if isinstance(output, tuple) else (output, None)
        for keeper in self.keepers:
            keeper(hidden, of_layers)
        if self.every_hidden is not None:
            self.every_hidden[: hidden.shape[0]].copy_(hidden)
        if self._runner.is_pooling_model:
            self._count_computed()
        else:
            torch.index_select(hidden, 0, self.rows.logit_token, out=self.hidden)

    def _count_computed(self) -> None:
        """The step's tokens are computed; where no token is sampled nothing else can say so."""
        starts, state = self.rows.query_start_loc, self.rows.state
        computed = self._runner.req_states.num_computed_tokens.gpu
        computed.index_add_(0, state, lengths_of(starts, state.shape[0]))

    def batch(self, scheduled: Any, state: BatchReqState, desc: Any) -> InputBatch:
        """Stage a step; the tensors of the returned batch are filled when the forward runs."""
        runner = self._runner
        count, tokens = len(state.req_ids), desc.num_tokens
        drafts = state.num_draft_tokens_np
        logits = np.ones(count, dtype=np.int32) if drafts is None else 1 + drafts
        logit_starts = np.zeros(count + 1, dtype=np.int32)
        np.cumsum(logits, out=logit_starts[1:])
        starts = self.stage(state.idx_mapping_np, state.num_scheduled_tokens, logits)
        computed = runner.req_states.num_computed_tokens_np[state.idx_mapping_np]
        longest = np.zeros(runner.max_num_reqs, dtype=np.int32)
        np.add(computed, state.num_scheduled_tokens, out=longest[:count])
        buffers = runner.input_buffers
        return InputBatch(
            req_ids=state.req_ids,
            num_reqs=count,
            num_reqs_after_padding=runner.max_num_reqs,
            idx_mapping=self.rows.state[:count],
            idx_mapping_np=state.idx_mapping_np,
            expanded_idx_mapping=self.rows.state[:count],
            expanded_local_pos=self._place_in_row[:count],
            num_scheduled_tokens=state.num_scheduled_tokens,
            num_tokens=state.num_tokens,
            num_tokens_after_padding=tokens,
            num_draft_tokens=int(logit_starts[-1]) - count,
            num_draft_tokens_per_req=drafts,
            query_start_loc=self.rows.query_start_loc,
            query_start_loc_np=starts,
            seq_lens=self.rows.seq_lens,
            seq_lens_cpu_upper_bound=torch.from_numpy(longest),
            dcp_local_seq_lens=None,
            num_computed_tokens_np=computed,
            prefill_len_np=state.prefill_len_np,
            num_computed_prefill_tokens_np=state.num_computed_prefill_tokens_np,
            is_prefilling_np=state.is_prefilling_np,
            has_prefill=state.has_prefill,
            prefill_runs_as_decode_np=state.prefill_runs_as_decode_np,
            decode_graph_eligible=state.decode_graph_eligible,
            max_seq_len_np=state.max_seq_len_np,
            input_ids=buffers.input_ids[:tokens],
            positions=buffers.positions[:tokens],
            is_padding=buffers.is_padding[:tokens],
            logits_indices=self.rows.logit_token[:count],
            cu_num_logits=self._logit_starts[: count + 1],
            cu_num_logits_np=logit_starts,
            has_structured_output_reqs=scheduled.has_structured_output_requests,
            prompt_lens=None,
        )

    def without_gaps(self, batch: InputBatch) -> InputBatch:
        """The batch as vLLM's sampler reads it: logits without unused places between them."""
        if self.width == 1:
            return batch
        starts, count = batch.cu_num_logits_np, batch.num_reqs
        row = np.repeat(np.arange(count), np.diff(starts))
        place = np.arange(starts[-1]) - starts[row]
        token = batch.query_start_loc_np[1:][row] - np.diff(starts)[row] + place

        def sent(values: np.ndarray, dtype: type) -> torch.Tensor:
            return async_tensor_h2d(values.astype(dtype), device=self._runner.device)

        return replace(
            batch,
            cu_num_logits=sent(starts, np.int32),
            # A padding row has no token of its own.
            logits_indices=sent(token.clip(min=0), np.int64),
            expanded_idx_mapping=sent(batch.idx_mapping_np[row], np.int64),
            expanded_local_pos=sent(place, np.int32),
        )


def is_plain(runner: HpuModelRunner) -> bool:
    """Whether nothing needs a step's inputs on the device before the forward.

    Images, prompt embeddings, rotary positions of more than one dimension, pipeline
    and context parallelism do; their engines prepare inputs as vLLM does.
    """
    from vllm.v1.worker.gpu.model_states.default import DefaultModelState
    from vllm.v1.worker.gpu.model_states.encoder_only import EncoderOnlyModelState

    from vllm_hpu.sample.graph_sampler import samples_in_graphs
    from vllm_hpu.spec_decode.drafter import PlannedDrafts
    from vllm_hpu.spec_decode.ngram import NgramSpeculator

    planned = (NgramSpeculator, PlannedDrafts) if samples_in_graphs(runner) else NgramSpeculator
    parallel = runner.parallel_config
    return (
        type(runner.model_state) in (DefaultModelState, EncoderOnlyModelState)
        and getattr(runner.model_state, "rope_state", None) is None
        and (runner.speculator is None or isinstance(runner.speculator, planned))
        and not runner.uses_inputs_embeds
        and not runner.is_encoder_decoder
        and runner.model_config.rswa_window is None
        and parallel.pipeline_parallel_size == 1
        and parallel.data_parallel_size == 1
        and parallel.decode_context_parallel_size == 1
        and parallel.prefill_context_parallel_size == 1
    )
