"""The runner's graph manager: maps a step to a planned key and launches it under that key.

Extends vLLM's ``ModelCudaGraphManager``; the runner's FULL path (inputs padded in persistent
buffers, forward by descriptor) is used in every execution mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.config.compilation import CUDAGraphMode
from vllm.logger import init_logger
from vllm.v1.worker.gpu.cudagraph_utils import (
    BatchExecutionDescriptor,
    ModelCudaGraphManager,
)

from vllm_hpu.graphs.launcher import Launcher
from vllm_hpu.metrics.collector import StepMetrics
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.plan import ShapePlan
from vllm_hpu.shapes.ready import ReadySet
from vllm_hpu.shapes.step import Step
from vllm_hpu.step.forward import StepForward

logger = init_logger("vllm.plugins.vllm_hpu.runner")


@dataclass(frozen=True)
class StepDescriptor(BatchExecutionDescriptor):
    """vLLM's descriptor with the planned key of the step."""

    key: GraphKey | None = None


class HpuGraphManager(ModelCudaGraphManager):
    """Dispatches steps to planned keys and runs their forwards.

    Attributes:
        plan: the shape plan.
        launcher: runs forwards in the engine's mode.
        next_step: numbers of the step about to be dispatched, set by the runner; None for
            vLLM's dummy batches, which are described by their token and request counts alone.
        forward: runs the model on the prepared step.
        metrics: counts steps; None on ranks whose steps another one counts.
        ready: the keys that have a graph, for steps with and without adapters; None when every
            step is launched under its own key (eager mode, or no warm-up).
    """

    def __init__(
        self,
        vllm_config: VllmConfig,
        device: torch.device,
        cudagraph_mode: CUDAGraphMode,
        decode_query_len: int,
        *,
        plan: ShapePlan,
        launcher: Launcher,
        forward: StepForward,
        **kwargs: Any,
    ) -> None:
        self.plan = plan
        self.launcher = launcher
        self.next_step: Step | None = None
        self.forward = forward
        self.metrics: StepMetrics | None = None
        self.ready: dict[bool, ReadySet] | None = None
        self._reported = False
        super().__init__(vllm_config, device, CUDAGraphMode.NONE, decode_query_len, **kwargs)

    def _init_candidates(self) -> None:
        """The candidates are the plan's keys."""

    def needs_capture(self) -> bool:
        return False

    def dispatch(
        self,
        num_reqs: int,
        num_tokens: int,
        uniform_token_count: int | None,
        num_active_loras: int,
        max_query_len: int | None = None,
        num_ubatches: int = 1,
    ) -> StepDescriptor:
        """Map the step to its planned key, or to one that covers it and has a graph."""
        step = self.next_step
        if step is None:
            # A dummy batch of vLLM: single-token rows without context.
            step = Step(
                decode_rows=num_reqs,
                decode_tokens=num_tokens,
                decode_blocks=num_reqs,
                prefill_rows=0,
                prefill_tokens=0,
                prefill_blocks=0,
            )
        loras = self._resolve_effective_loras(num_active_loras)
        if self.ready is None:
            key = self.plan.dispatch(step)
        else:
            key, loras = self._ready_key(step, loras, self.ready)
        self.forward.key = key
        return self.descriptor(key, loras)

    def _ready_key(
        self, step: Step, loras: int, ready: dict[bool, ReadySet]
    ) -> tuple[GraphKey, int]:
        """The key and adapters of the step's graph: one with adapters serves steps without."""
        key = ready[loras > 0].dispatch(step)
        if key in ready[loras > 0] or loras or True not in ready:
            return key, loras
        able = ready[True].dispatch(step)
        return (able, max(self.forward.runner.lora_cases)) if able in ready[True] else (key, loras)

    def descriptor(self, key: GraphKey, num_active_loras: int) -> StepDescriptor:
        """The descriptor of a planned key; rows are always padded to capacity."""
        return StepDescriptor(
            cg_mode=CUDAGraphMode.FULL,
            num_tokens=key.tokens,
            num_reqs=self.max_num_reqs,
            num_active_loras=num_active_loras,
            key=key,
        )

    def run_fullgraph(self, desc: BatchExecutionDescriptor) -> Any:
        """Run the prepared step under its key; returns the model's output, [tokens, hidden]."""
        if not isinstance(desc, StepDescriptor) or desc.key is None:
            raise RuntimeError(f"The step {desc} was not dispatched by this manager.")
        if self.metrics is not None and self.next_step is not None:
            self.metrics.count(self.next_step, desc.key)
        if self.ready is None:
            return self.launch(desc)
        ready = self.ready[desc.num_active_loras > 0]
        if desc.key not in ready and not self._reported:
            self._reported = True
            logger.warning(
                "A step waits for the compilation of a graph that warm-up has not compiled: %s.%s "
                "Further ones are not logged; vllm:hpu_steps_total counts them.",
                desc.key,
                "" if desc.key in self.plan else self._why_outside(),
            )
        output = self.launch(desc)
        ready.add(desc.key)
        return output

    def _why_outside(self) -> str:
        """Why a step has no planned key, and what to change."""
        limits = self.plan.limits
        return (
            f" It is outside the plan, which ends at {limits.decode_blocks} KV blocks in decode "
            f"rows and {limits.prefill_blocks} in prefill rows: several rows with long contexts "
            "came together. A lower --max-num-batched-tokens plans for more blocks, a lower "
            "--max-num-seqs or --max-model-len needs fewer."
        )

    def launch(self, desc: StepDescriptor) -> Any:
        """Run the forward of the step that is prepared for ``desc``."""
        if desc.key is None:
            raise RuntimeError(f"The step {desc} has no key.")
        # Graphs with adapters run other operators than graphs without.
        adapters = desc.num_active_loras > 0
        with self.forward.runner.adapters_on(adapters):
            return self.launcher.launch((desc.key, adapters), self.forward.bind(desc.key))
