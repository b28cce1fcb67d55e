"""The model runner: vLLM's runner V2 with planned shapes.

What differs from vLLM's: a step is described by pure numbers and mapped to a planned key before its
inputs are prepared, rows are padded with a dump row, and the forward runs through the engine's
execution mode. Everything else is inherited.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import torch
import vllm.v1.worker.gpu.model_runner as upstream
from vllm.config import VllmConfig
from vllm.logger import init_logger
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.worker.gpu.async_utils import AsyncOutput, AsyncPoolingOutput
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.model_runner import BatchReqState, GPUModelRunner
from vllm.v1.worker.gpu.sample.output import SamplerOutput
from vllm.v1.worker.gpu.spec_decode.speculator import DraftModelSpeculator

from vllm_hpu.engine_plan import plan_for
from vllm_hpu.graphs import region as regions
from vllm_hpu.graphs.compiled_layers import compile_layers, compile_region, prepare_dynamo
from vllm_hpu.graphs.launcher import Launcher
from vllm_hpu.graphs.mode import Mode, choose_mode
from vllm_hpu.lora.punica import PunicaWrapperHPU, with_adapters, with_logits_of, wrappers_of
from vllm_hpu.lora.slots import fill_from_host
from vllm_hpu.ops.derived import derive_all
from vllm_hpu.pooling.runner import GraphPoolingRunner
from vllm_hpu.runner.failed_requests import FailedRequests
from vllm_hpu.runner.graph_manager import HpuGraphManager
from vllm_hpu.runner.state_update_graphs import BetweenGraphs
from vllm_hpu.sample.graph_sampler import StepSampler, most_scores, step_sampler
from vllm_hpu.sample.prompt_logprobs import PromptScores, PromptScoresOfAdapters
from vllm_hpu.sample.sampling_graph import Drawn
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.step import step_of
from vllm_hpu.spec_decode import init_speculator, use_plain_launches
from vllm_hpu.spec_decode.drafter import Drafter, PlannedDrafts
from vllm_hpu.spec_decode.graph_proposer import StepProposer
from vllm_hpu.spec_decode.ngram import NgramSpeculator
from vllm_hpu.step.forward import StepForward
from vllm_hpu.step.inputs import StepInputs, is_plain
from vllm_hpu.step.row_padding import pad_rows
from vllm_hpu.vllm_seams import replaced

logger = init_logger("vllm.plugins.vllm_hpu.runner")


class SmallGraphs(Protocol):
    """What has graphs beside the forwards.

    Attributes:
        takes_room: whether a graph keeps memory worth counting.
    """

    takes_room: bool

    def warm_up_one(self) -> bool:
        """Compile the next one on padding rows; False when none is left."""
        ...


class FirstGraphs(SmallGraphs, Protocol):
    """Of these one can do any step's work."""

    def launch_first(self) -> None:
        """Run that one on padding rows, before the KV cache is there."""
        ...


class KeyedGraphs(Protocol):
    """What has one graph for each planned key, launched after the key's forward."""

    def launch(self, key: GraphKey) -> None:
        """Run it for the step that was prepared last."""
        ...

    def forget_caches(self) -> None:
        """Ask the layers for their caches again."""
        ...


class HpuModelRunner(GPUModelRunner):
    """Runs a model's steps on one Gaudi card.

    Attributes:
        plan: the shapes this engine may launch.
        mode: the execution mode with its reason.
        launcher: runs forwards in that mode.
        step_forward: the forward of the step whose inputs are in the persistent buffers.
        dump_row: index of the request-state row that padding rows point at.
        step_inputs: derives a step's inputs within its forward; None for engines that need them
            before it.
        step_sampler: samples steps by one launch; None where vLLM's sampler always does.
        failed_requests: those that could not be added and end alone.
        small_graphs: what has graphs beside the forwards.
        first_graphs: those of which one is needed before the first request.
        keyed_graphs: what is launched after a step's forward under the same key.
    """

    cudagraph_manager: HpuGraphManager | None
    step_inputs: StepInputs | None = None
    step_sampler: StepSampler | None = None

    def __init__(self, vllm_config: VllmConfig, device: torch.device) -> None:
        # Without the dump row, which is none of a step's rows.
        self._engine_config = vllm_config
        self.plan = plan_for(vllm_config)
        self.mode = choose_mode(vllm_config.model_config.enforce_eager)
        self.launcher = Launcher(self.mode.mode)
        if self.mode.mode is Mode.COMPILE:
            prepare_dynamo()
        regions.use(partial(compile_region, mode=self.mode.mode))
        self.small_graphs: list[SmallGraphs] = []
        self.first_graphs: list[FirstGraphs] = []
        self.keyed_graphs: list[KeyedGraphs] = []
        self._adapters: set[PunicaWrapperHPU] = set()
        with replaced(upstream, "init_speculator", init_speculator):
            super().__init__(_with_dump_row(vllm_config), device)
        self.failed_requests = FailedRequests(self)
        self.dump_row = self.max_num_reqs - 1
        self.req_states.free_indices.remove(self.dump_row)
        # What is sized from here on is sized by the user's numbers.
        self.scheduler_config = vllm_config.scheduler_config
        if isinstance(self.speculator, DraftModelSpeculator):
            # The draft model's configuration is made from it, and checked as the engine's was.
            self.speculator.vllm_config = vllm_config

    def plan_up_to(self, num_blocks: int) -> None:
        """Plan steps of at most so many KV blocks; before the KV cache is there."""
        self.plan = plan_for(self._engine_config, num_blocks)

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        derive_all(self.model)
        drafter = getattr(self.speculator, "model", None)
        if drafter is not None:
            derive_all(drafter)
        fill_from_host(self.model)
        self._adapters = wrappers_of(self.model)
        if self.mode.mode is Mode.COMPILE:
            regions = compile_layers(self.model)
            logger.info("torch.compile with hpu_backend: %d layers as regions.", regions)
        self.step_forward = StepForward(self)
        if self._adapters and self.prompt_logprobs_worker is not None:
            self.prompt_logprobs_worker = PromptScoresOfAdapters(self)
        if is_plain(self):
            self._use_derived_inputs()
        elif self.speculator is not None:
            use_plain_launches(self.speculator)

    def _use_derived_inputs(self) -> None:
        """Let the forward derive its inputs, and what follows it be single launches."""
        self.step_inputs = StepInputs(self)
        # Clearing a new request's row on the device would be a launch.
        self.req_states.draft_tokens = self.step_inputs.drafts
        if self.pooling_runner is not None:
            pooling = GraphPoolingRunner(self, self.step_inputs)
            self.pooling_runner = pooling
            self.first_graphs.append(pooling)
        self.step_sampler = step_sampler(self)
        if self.step_sampler is not None:
            self._use_sampling_graphs(self.step_inputs, self.step_sampler)
        if self.first_graphs:
            self.small_graphs += [BetweenGraphs(self), *self.first_graphs]

    def _use_sampling_graphs(self, inputs: StepInputs, sampler: StepSampler) -> None:
        """What a step does with a forward's result, where it samples."""
        self.first_graphs.append(sampler)
        if self.mode.mode is not Mode.EAGER:
            scores = PromptScores(self, inputs, most_scores(self))
            self.prompt_logprobs_worker = scores
            self.first_graphs.append(scores)
        if isinstance(self.speculator, PlannedDrafts):
            drafter = Drafter(self, self.speculator, inputs, sampler)
            self.speculator.drafter = drafter
            inputs.keepers.append(drafter.keep_hidden)
            self.keyed_graphs.append(drafter)
        if isinstance(self.speculator, NgramSpeculator):
            proposer = StepProposer(self, self.speculator, inputs, sampler)
            self.speculator.propose_by(proposer)
            self.first_graphs.append(proposer)

    def initialize_kv_cache(self, *args: Any, **kwargs: Any) -> None:
        make_manager = partial(
            HpuGraphManager, plan=self.plan, launcher=self.launcher, forward=self.step_forward
        )
        self.launcher.clear()
        self.step_forward.forget_caches()
        for part in self.keyed_graphs:
            part.forget_caches()
        with replaced(upstream, "ModelCudaGraphManager", make_manager):
            super().initialize_kv_cache(*args, **kwargs)

    def gather_batch_req_state(
        self, scheduler_output: SchedulerOutput, dummy_run: bool
    ) -> tuple[BatchReqState | None, int | None]:
        """Describe the step for dispatch and pad its rows."""
        state, uniform = super().gather_batch_req_state(scheduler_output, dummy_run)
        if self.cudagraph_manager is None:
            return state, uniform
        if state is None:
            self.cudagraph_manager.next_step = None
            if self.step_inputs is not None:
                self.step_inputs.stage_nothing()
            return state, uniform
        computed = self.req_states.num_computed_tokens_np[state.idx_mapping_np]
        self.cudagraph_manager.next_step = step_of(
            state.num_scheduled_tokens,
            computed,
            self.cache_config.block_size,
            self.decode_query_len,
        )
        # The numbers of padding rows must stay the same however many steps have run.
        if (self.speculator is None or self.step_inputs is not None) and not self.is_pooling_model:
            state = pad_rows(state, self.plan.rows(len(state.req_ids)), self.dump_row)
        return state, uniform

    def prepare_inputs(
        self,
        scheduler_output: SchedulerOutput,
        batch_req_state: BatchReqState,
        batch_desc: Any,
        num_active_loras: int,
    ) -> InputBatch:
        if self.step_inputs is not None:
            batch = self.step_inputs.batch(scheduler_output, batch_req_state, batch_desc)
        else:
            batch = super().prepare_inputs(
                scheduler_output, batch_req_state, batch_desc, num_active_loras
            )
        # Padding rows have no request behind them: whoever walks req_ids sees the real ones only.
        batch.req_ids = batch.req_ids[: len(scheduler_output.num_scheduled_tokens)]
        return batch

    def prepare_attn(
        self, input_batch: InputBatch
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        if self.step_inputs is None:
            return super().prepare_attn(input_batch)
        tables = self.block_tables
        rows, tokens = input_batch.num_reqs_after_padding, input_batch.num_tokens_after_padding
        return (
            tuple(table[:rows] for table in tables.input_block_tables),
            tables.slot_mappings[:, :tokens],
        )

    def add_requests(self, scheduler_output: SchedulerOutput) -> None:
        self.failed_requests.add(scheduler_output, self._add_requests)

    def _add_requests(self, scheduler_output: SchedulerOutput) -> None:
        super().add_requests(scheduler_output)
        if self.step_sampler is None:
            return
        for request in scheduler_output.scheduled_new_reqs:
            if request.sampling_params is not None:
                row = self.req_states.req_id_to_index[request.req_id]
                self.step_sampler.add_request(row, request.sampling_params)

    def sample(
        self,
        hidden_states: torch.Tensor,
        input_batch: InputBatch,
        grammar_output: GrammarOutput | None,
    ) -> tuple[SamplerOutput, torch.Tensor, torch.Tensor]:
        draw = None
        if self.step_sampler is not None:
            draw = self.step_sampler.draw_of(input_batch, grammar_output)
        if draw is None or self.step_sampler is None:
            if self.step_inputs is not None:
                input_batch = self.step_inputs.without_gaps(input_batch)
            with self.logits_of(input_batch.logits_indices):
                return super().sample(hidden_states, input_batch, grammar_output)
        output = self.step_sampler.sample(input_batch, draw, grammar_output)
        return output, output.num_sampled, output.num_rejected

    def postprocess_sampled(
        self,
        idx_mapping: torch.Tensor,
        sampled_tokens: torch.Tensor,
        num_sampled: torch.Tensor,
        num_rejected: torch.Tensor,
        query_start_loc: torch.Tensor | None = None,
    ) -> None:
        if self.step_sampler is not None:
            self.step_sampler.feed_back(Drawn(sampled_tokens, num_sampled, num_rejected))
            return
        super().postprocess_sampled(
            idx_mapping, sampled_tokens, num_sampled, num_rejected, query_start_loc
        )

    def sample_tokens(
        self, grammar_output: GrammarOutput | None
    ) -> AsyncOutput | ModelRunnerOutput | None:
        output = super().sample_tokens(grammar_output)
        self.failed_requests.tell(output)
        if self.step_sampler is not None and isinstance(output, AsyncOutput):
            self.step_sampler.keep_until(output.copy_event)
        return output

    def pool(self) -> AsyncPoolingOutput | ModelRunnerOutput | None:
        output = super().pool()
        if isinstance(self.pooling_runner, GraphPoolingRunner) and isinstance(
            output, AsyncPoolingOutput
        ):
            self.pooling_runner.keep_until(output.copy_event)
        self.failed_requests.tell(output)
        return output

    def postprocess_num_computed_tokens(self, input_batch: InputBatch) -> None:
        if self.step_inputs is None:  # otherwise the forward has counted them
            super().postprocess_num_computed_tokens(input_batch)

    def shutdown(self) -> None:
        """Give back captured graphs before the weights they hold on to."""
        self.launcher.clear()
        super().shutdown()

    @property
    def lora_cases(self) -> list[int]:
        """Counts of active adapters that graphs differ by: none, and any."""
        return [0] if self.lora_config is None else [0, self.lora_config.max_loras]

    def adapters_on(self, active: bool) -> AbstractContextManager[None]:
        """Run forwards as in a step with adapters (or without).

        Which adapters a step uses changes no graph, and none at all is as good as any.
        """
        return with_adapters(self._adapters, active)

    def logits_of(self, tokens: torch.Tensor) -> AbstractContextManager[None]:
        """Compute logits from the hidden states of the step's ``tokens``, integers [rows].

        Whoever calls ``compute_logits`` while requests run says so by this: the adapters of the
        output matrix differ from row to row.
        """
        return with_logits_of(self._adapters, tokens)


def _with_dump_row(vllm_config: VllmConfig) -> VllmConfig:
    """A shallow copy whose request states have one row more than the scheduler will use."""
    config = copy.copy(vllm_config)
    config.scheduler_config = copy.copy(vllm_config.scheduler_config)
    config.scheduler_config.max_num_seqs += 1
    return config
