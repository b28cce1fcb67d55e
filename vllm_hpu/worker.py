"""The worker: one process per card."""

from __future__ import annotations

import gc
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple
from typing import TYPE_CHECKING

import torch
from vllm.config import set_current_vllm_config
from vllm.logger import init_logger
from vllm.multimodal.gpu_ipc_memory import reserve_mm_ipc_gpu_memory
from vllm.platforms import current_platform
from vllm.utils.mem_utils import MemorySnapshot
from vllm.utils.torch_utils import set_random_seed
from vllm.v1.worker.gpu_worker import Worker, init_worker_distributed_environment
from vllm.v1.worker.startup_plan import maybe_apply_startup_plan
from vllm.v1.worker.utils import request_memory
from vllm.v1.worker.worker_base import CompilationTimes

from vllm_hpu import compat
from vllm_hpu.device.info import load_bridge
from vllm_hpu.device.metrics import compilations
from vllm_hpu.errors import ConfigurationError
from vllm_hpu.graphs.mode import Mode
from vllm_hpu.liveness import pulse
from vllm_hpu.memory.engine import EngineMemory
from vllm_hpu.metrics.collector import EngineMetrics, Phase
from vllm_hpu.metrics.progress import WarmupProgress
from vllm_hpu.runner.model_runner import HpuModelRunner
from vllm_hpu.settings import metrics_folder, settings
from vllm_hpu.shapes.step_budget import StepBounds
from vllm_hpu.text import size
from vllm_hpu.warmup.service import WarmUp

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
    from vllm.v1.outputs import AsyncModelRunnerOutput, ModelRunnerOutput

logger = init_logger("vllm.plugins.vllm_hpu.worker")


class HpuWorker(Worker):
    """vLLM's worker with Gaudi's device set-up, memory accounting and warm-up."""

    model_runner: HpuModelRunner  # type: ignore[assignment]  # vLLM names its V1 runner here
    warm_up: WarmUp | None = None
    memory: EngineMemory
    metrics: EngineMetrics
    _idle_gaps = False

    def init_device(self) -> None:
        """Bind this process to its card and create the model runner."""
        load_bridge()
        self.pulse = pulse.start(metrics_folder()[0], f"rank {self.rank}")
        self.metrics = EngineMetrics(self.vllm_config, self.rank)
        compat.install_in_worker()
        cards = torch.hpu.device_count()
        if self.local_rank >= cards:
            raise ConfigurationError(
                f"Rank {self.local_rank} of this host has no card",
                f"{cards} visible",
                "Lower --tensor-parallel-size or widen HABANA_VISIBLE_MODULES",
            )
        self.device = torch.device("hpu", self.local_rank)
        torch.hpu.set_device(self.device)
        current_platform.check_if_supports_dtype(self.model_config.dtype)
        init_worker_distributed_environment(
            self.vllm_config,
            self.rank,
            self.distributed_init_method,
            self.local_rank,
            current_platform.dist_backend,
        )
        set_random_seed(self.model_config.seed)
        # vLLM collects garbage before each of its memory measurements while it loads, and each
        # time would look at all that importing it has made.
        self._settle_heap()
        torch.hpu.empty_cache()
        self.init_snapshot = MemorySnapshot(device=self.device)
        self.requested_memory = request_memory(self.init_snapshot, self.cache_config)
        self._init_workspace_and_model_runner()

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        """Load the weights; too little memory is refused, before if that is certain."""
        self.memory = EngineMemory(
            self.vllm_config,
            self.model_runner.mode.mode,
            self.requested_memory,
            self.init_snapshot,
        )
        self.memory.before_loading()
        with self.memory.while_loading():
            super().load_model(load_dummy_weights=load_dummy_weights)

    @torch.inference_mode()
    def determine_available_memory(self) -> int:
        """Bytes for the KV cache, what measured steps leave; a size the user chose must fit."""
        maybe_apply_startup_plan(self)
        wanted = self.cache_config.kv_cache_memory_bytes
        free = self.init_snapshot.free_memory
        if wanted is not None and wanted > free:
            raise ConfigurationError(
                f"A KV cache of {size(wanted)} does not fit on {self.device}",
                f"{size(free)} of its memory were free before the model was loaded",
                "Lower --kv-cache-memory-bytes",
            )
        with set_current_vllm_config(self.vllm_config):
            plan = self.memory.determine(self.model_runner)
        return reserve_mm_ipc_gpu_memory(
            plan.kv,
            self.model_config.multimodal_config,
            getattr(self.parallel_config, "_api_process_count", 1),
        )

    def execute_model(
        self, scheduler_output: SchedulerOutput
    ) -> ModelRunnerOutput | AsyncModelRunnerOutput | None:
        # What sees images has no planned shapes: whenever a size is new, it compiles.
        encodes = bool(scheduler_output.scheduled_encoder_inputs)
        with pulse.away() if encodes else self.pulse.step():
            return super().execute_model(scheduler_output)

    def sample_tokens(
        self, grammar_output: GrammarOutput | None
    ) -> ModelRunnerOutput | AsyncModelRunnerOutput:
        with self.pulse.step():
            return super().sample_tokens(grammar_output)

    def step_bounds(self) -> tuple[int, ...]:
        """What a step may have within the plan: the fields of ``StepBounds``."""
        return astuple(StepBounds.of(self.model_runner.plan.limits))

    def compilations(self) -> int:
        """Recipes compiled by this rank so far."""
        return compilations()

    def _make_model_runner(self) -> HpuModelRunner:  # type: ignore[override]
        return HpuModelRunner(self.vllm_config, self.device)

    def _maybe_get_memory_pool_context(self, tag: str) -> AbstractContextManager:
        # vLLM's pools exist for its sleep mode, which is refused at start.
        return nullcontext()

    def leave_graphs_to_idle_gaps(self) -> bool:
        """Warm up only what serving needs; :meth:`warm_up_one` is called for the rest.

        Returns whether there will be a rest.
        """
        self._idle_gaps = self._warms_up()
        return self._idle_gaps

    @torch.inference_mode()
    def compile_or_warm_up_model(self) -> CompilationTimes:
        """Compile the planned shapes and report how long that took.

        Eager mode compiles nothing ahead. ``VLLM_SKIP_WARMUP`` leaves compilation to the first
        request that needs a shape.
        """
        seconds = 0.0
        if self.model_runner.cudagraph_manager is not None:
            self.model_runner.cudagraph_manager.metrics = self.metrics.steps(self.model_runner.plan)
        if self._warms_up():
            self._settle_heap()
            with set_current_vllm_config(self.vllm_config):
                self.warm_up = WarmUp(self.model_runner, self.memory.keep_free)
                with self.metrics.phase(Phase.WARM_UP):
                    seconds = self.warm_up.before_serving(everything=not self._idle_gaps)
            self.metrics.show(self.warm_up.progress)
        elif self.model_runner.mode.mode is Mode.EAGER:
            logger.info("No warm-up: %s.", self.model_runner.mode.reason)
        else:
            logger.warning(
                "VLLM_SKIP_WARMUP is set: shapes compile when a request first needs them, and that "
                "request waits."
            )
        set_random_seed(self.model_config.seed, self.parallel_config.data_parallel_index)
        self._settle_heap()
        self.memory.before_serving(self.device)
        self.metrics.watch_memory(self.device)
        self.metrics.enter(Phase.SERVING)
        return CompilationTimes(language_model=seconds, encoder=0.0)

    def warm_up_one(self) -> WarmupProgress:
        """Compile the next graph; all ranks are called at the same place among the steps."""
        if self.warm_up is None:
            return WarmupProgress(planned=0, finished=True)
        with (
            set_current_vllm_config(self.vllm_config),
            self.metrics.phase(Phase.IDLE_GAP),
            pulse.away(),
        ):
            progress = self.warm_up.one()
        self.metrics.show(progress)
        if progress.finished:
            self._settle_heap()
        return progress

    def warm_up_progress(self) -> WarmupProgress | None:
        """How far warm-up has come; None without warm-up."""
        return None if self.warm_up is None else self.warm_up.progress

    def shutdown(self) -> None:
        if hasattr(self, "metrics"):  # start may have failed before
            self.metrics.close()
            pulse.stop(self.pulse)
        super().shutdown()

    def _warms_up(self) -> bool:
        return self.model_runner.mode.mode is not Mode.EAGER and not settings().skip_warmup

    @staticmethod
    def _settle_heap() -> None:
        """What start and warm-up left behind is not looked at again by the garbage collector."""
        gc.collect()
        gc.freeze()
