"""A draft model's proposals as one launch per step: its first forward and all that follow it.

vLLM's EAGLE, MTP and draft-model speculators load the model and say how drafts are sampled; what
they launch is replaced. Their forwards have the sizes of the target's planned key, so a step with
drafts has one graph more than a step without, and warm-up compiles both together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from vllm.config.compilation import CUDAGraphMode
from vllm.forward_context import set_forward_context
from vllm.v1.worker.gpu.attn_utils import build_slot_mappings_by_layer
from vllm.v1.worker.gpu.spec_decode.speculator import DraftModelSpeculator

from vllm_hpu.attention.metadata import HpuAttentionMetadata
from vllm_hpu.attention.shape import AttentionShape
from vllm_hpu.attention.step_plans import StepPlans
from vllm_hpu.graphs.compiled_layers import compile_layers
from vllm_hpu.graphs.mode import Mode
from vllm_hpu.kernels.rows import take
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.spec_decode.draft_inputs import DraftTokens, TargetRows, derive_first, derive_next
from vllm_hpu.spec_decode.draft_shapes import draft_rows, first_shape, next_shape

if TYPE_CHECKING:
    from vllm.v1.worker.gpu.input_batch import InputBatch

    from vllm_hpu.runner.model_runner import HpuModelRunner
    from vllm_hpu.sample.graph_sampler import StepSampler
    from vllm_hpu.step.inputs import StepInputs

__all__ = ["Drafter", "PlannedDrafts"]


class PlannedDrafts(DraftModelSpeculator):
    """Mixed into a speculator of vLLM: it proposes by its :class:`Drafter`."""

    drafter: Drafter

    def init_cudagraph_manager(self, cudagraph_mode: CUDAGraphMode) -> None:
        """No graphs of vLLM's: the runner's launcher holds those of the drafter."""

    def capture(self) -> None:
        """Nothing: warm-up launches the drafter under every planned key."""

    def propose(
        self, input_batch: InputBatch, *args: Any, dummy_run: bool = False, **kwargs: Any
    ) -> torch.Tensor:
        """Drafts int64 ``[rows, K]`` of the step's rows; zeros for vLLM's dummy batches."""
        if dummy_run:
            return self.draft_tokens[: input_batch.num_reqs]
        return self.drafter.propose(input_batch.num_reqs)


class Drafter:
    """Launches a speculator's forwards under the key of the target's step.

    The first forward goes over the tokens of the target's step; each further one over one token per
    row. Drafts are written to the request states.
    """

    def __init__(
        self,
        runner: HpuModelRunner,
        speculator: PlannedDrafts,
        inputs: StepInputs,
        sampler: StepSampler,
    ) -> None:
        self._runner, self._speculator = runner, speculator
        self._inputs, self._sampler = inputs, sampler
        # A head reads the target's hidden state and the token after it; a model of its own reads
        # tokens alone, the newest included.
        self._reads_hidden = hasattr(speculator, "hidden_states")
        self._ahead, self._extra = (1, 0) if self._reads_hidden else (0, 1)
        rows, device = runner.max_num_reqs, runner.device
        tokens = runner.max_num_tokens + self._extra * rows
        self._last = torch.zeros(rows, dtype=torch.int64, device=device)
        self._input_ids = torch.zeros(tokens, dtype=torch.int32, device=device)
        self._positions = torch.zeros(tokens, dtype=torch.int64, device=device)
        self._starts = torch.zeros(rows + 1, dtype=torch.int32, device=device)
        self._one_each = torch.arange(rows + 1, dtype=torch.int32, device=device)
        self._seq_lens = torch.zeros(rows, dtype=torch.int32, device=device)
        self._slots: torch.Tensor | None = None  # as many rows as the KV cache has groups
        self._plans: StepPlans | None = None
        if runner.mode.mode is Mode.COMPILE:
            compile_layers(speculator.model)

    def keep_hidden(self, hidden: torch.Tensor, aux_hidden: list[torch.Tensor] | None) -> None:
        """Keep what a head reads of the target's forward ``[T, H]``; part of that forward."""
        if not self._reads_hidden:
            return
        speculator: Any = self._speculator
        if aux_hidden is not None:
            hidden = speculator.model.combine_hidden_states(torch.cat(aux_hidden, dim=-1))
        speculator.hidden_states[: hidden.shape[0]].copy_(hidden)

    def forget_caches(self) -> None:
        """Ask the layers for their caches again in the next launch."""
        self._plans = self._slots = None

    def propose(self, rows: int) -> torch.Tensor:
        """One launch: drafts int64 ``[rows, K]`` for the step that has just been sampled."""
        runner = self._runner
        # The host may still read the last step's.
        runner.main_stream.wait_event(runner.draft_tokens_handler.copy_event)
        key = runner.step_forward.key
        if key is None:
            raise RuntimeError("Drafts are proposed after a step, and none has been dispatched.")
        self.launch(key)
        return self._inputs.drafts.of_row[:rows]

    def launch(self, key: GraphKey) -> None:
        """Propose for the rows that the last step left in the persistent tensors."""
        self._runner.launcher.launch(("draft", key), lambda: self._draft(key))

    def _draft(self, key: GraphKey) -> None:
        runner, speculator = self._runner, self._speculator
        limits, steps = runner.plan.limits, speculator.num_speculative_steps
        rows, count = self._rows(), draft_rows(key, limits)
        longest = runner.max_model_len
        shape = first_shape(key, limits, self._extra)
        draft = self._tokens(shape.tokens, self._starts, self._seq_lens)
        derive_first(rows, draft, self._last, self._ahead, self._extra, longest)
        hidden: torch.Tensor | None = None
        if self._reads_hidden:
            hidden = speculator.hidden_states[: shape.tokens]  # type: ignore[attr-defined]
        last = self._last[:count]
        forward = _Forward(self, draft, shape)
        logits_from, feedback = forward(hidden)
        positions = take(draft.positions, last)
        logits_from, feedback = take(logits_from, last), take(feedback, last)
        drafts = [self._sample(logits_from, positions, 0)]

        if steps > 1:
            shape = next_shape(key, limits, self._extra + steps - 1)
            draft = self._tokens(count, self._one_each[: count + 1], self._seq_lens[:count])
            forward = _Forward(self, draft, shape)
        for step in range(1, steps):
            derive_next(rows, draft, drafts[-1], positions, longest)
            positions = draft.positions.clone()
            logits_from, feedback = forward(feedback if self._reads_hidden else None)
            drafts.append(self._sample(logits_from, positions, step))

        proposed = torch.stack(drafts, dim=1)
        table = self._inputs.drafts
        table.of_row[:count].copy_(proposed)
        table.of_request.index_copy_(0, rows.state[:count], proposed)

    def _sample(self, hidden: torch.Tensor, positions: torch.Tensor, step: int) -> torch.Tensor:
        """One draft int64 [R] of each row, as vLLM's speculator samples it."""
        speculator: Any = self._speculator
        states = self._runner.sampler.sampling_states  # type: ignore[union-attr]
        speculator.current_draft_step.fill_(step)
        # A head's result at a position drafts the token two places on, whose draw is named by the
        # place before it.
        drawn: torch.Tensor = speculator.sample_draft(
            hidden,
            positions + self._ahead,
            self._inputs.rows.state[: hidden.shape[0]],
            states.temperature.gpu,
            states.seeds.gpu,
            speculator.current_draft_step,
            speculator.draft_logits,
        )
        return drawn.to(torch.int64)

    def _rows(self) -> TargetRows:
        runner, rows = self._runner, self._inputs.rows
        tables = runner.block_tables
        enabled = tables._slot_mapping_enabled
        return TargetRows(
            rows.state,
            rows.query_start_loc,
            rows.seq_lens,
            self._sampler.drawn.rejected,
            runner.req_states.all_token_ids.gpu,
            tables.input_block_tables,
            tuple(size if on else 0 for size, on in zip(tables.block_sizes, enabled, strict=True)),
        )

    def _tokens(self, tokens: int, starts: torch.Tensor, seq_lens: torch.Tensor) -> DraftTokens:
        if self._slots is None:
            groups = self._runner.block_tables.num_kv_cache_groups
            size = groups, self._input_ids.shape[0]
            self._slots = torch.zeros(size, dtype=torch.int64, device=self._runner.device)
        return DraftTokens(
            self._input_ids[:tokens],
            self._positions[:tokens],
            starts,
            seq_lens,
            self._slots[:, :tokens],
        )


class _Forward(NamedTuple):
    """Forwards of the draft model over the same tensors, for one shape."""

    drafter: Drafter
    draft: DraftTokens
    shape: AttentionShape

    def __call__(self, hidden: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states [T, H] that logits come from, and those that the next forward reads."""
        drafter, draft = self.drafter, self.draft
        runner, speculator = drafter._runner, drafter._speculator
        config = runner.vllm_config
        if drafter._plans is None:
            layers = config.compilation_config.static_forward_context
            drafter._plans = StepPlans(speculator.model, layers, runner.dtype)
        metadata = self._metadata()
        inputs: dict[str, Any] = {"input_ids": draft.input_ids, "positions": draft.positions}
        if hidden is not None:
            inputs |= {"hidden_states": hidden, "inputs_embeds": None}
        with (
            drafter._plans.handed_out(metadata),
            set_forward_context(
                metadata,
                config,
                num_tokens=draft.positions.shape[0],
                slot_mapping=build_slot_mappings_by_layer(draft.slots, runner.kv_cache_config),
            ),
        ):
            result = speculator.model(**inputs)
        return result if isinstance(result, tuple) else (result, result)

    def _metadata(self) -> dict[str, HpuAttentionMetadata]:
        """Attention metadata by the names of the draft model's layers."""
        runner, draft = self.drafter._runner, self.draft
        rows = draft.seq_lens.shape[0]
        metadata = {}
        for groups in self.drafter._speculator.attn_groups:
            for group in groups:
                number = group.kv_cache_group_id
                one = HpuAttentionMetadata(
                    shape=self.shape,
                    query_start_loc=draft.query_start_loc,
                    seq_lens=draft.seq_lens,
                    block_table=runner.block_tables.input_block_tables[number][:rows],
                    slot_mapping=draft.slots[number],
                    causal=True,
                    longest=runner.max_model_len,
                )
                metadata.update(dict.fromkeys(group.layer_names, one))
        return metadata
