"""The forward of one step, as a function of persistent buffers only.

A captured graph replays exactly what was captured, so the forward may read tensors that stay where
they are (input buffers, block tables, slot mappings) and nothing that changes from step to step in
Python. Attention metadata therefore holds views of those buffers, and whatever is derived from them
is derived inside the forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vllm.forward_context import set_forward_context
from vllm.v1.worker.gpu.attn_utils import build_slot_mappings_by_layer

from vllm_hpu.attention.metadata import active_key
from vllm_hpu.attention.step_plans import StepPlans
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.step.token_types import TokenTypes

if TYPE_CHECKING:
    from vllm_hpu.runner.model_runner import HpuModelRunner


class StepForward:
    """Knows the prepared step's metadata and makes its forward.

    Attributes:
        key: the planned key of the step being prepared; the metadata is built for it.
        runner: whose model it runs.
    """

    def __init__(self, runner: HpuModelRunner) -> None:
        self.key: GraphKey | None = None
        self.runner = runner
        self._metadata: dict[str, Any] = {}
        self._slot_mappings: dict[str, Any] = {}
        self._token_types = TokenTypes(runner)
        self._plans: StepPlans | None = None  # made once caches are bound
        # Attention metadata is made by the model state, deep inside the runner's step; this is the
        # one place where it passes with everything a forward needs.
        self._build = runner.model_state.prepare_attn
        runner.model_state.prepare_attn = self._prepare_attn  # type: ignore[assignment, method-assign]

    def forget_caches(self) -> None:
        """Let the next forward ask the layers for their caches again."""
        self._plans = None

    def _prepare_attn(
        self,
        input_batch: Any,
        cudagraph_mode: Any,
        block_tables: Any,
        slot_mappings: Any,
        attn_groups: Any,
        kv_cache_config: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        with active_key(self.key):
            self._metadata = self._build(
                input_batch,
                cudagraph_mode,
                block_tables,
                slot_mappings,
                attn_groups,
                kv_cache_config,
                **kwargs,
            )
        self._slot_mappings = build_slot_mappings_by_layer(slot_mappings, kv_cache_config)
        return self._metadata

    def forget(self) -> None:
        """Drop the prepared step, which holds tensors of the KV cache it was prepared for."""
        self.key = None
        self._metadata, self._slot_mappings = {}, {}

    def bind(self, key: GraphKey) -> Callable[[], Any]:
        """The forward of the prepared step; its result is the model's output."""
        runner = self.runner
        tokens = key.tokens
        buffers = runner.input_buffers
        inputs = {
            "input_ids": buffers.input_ids[:tokens],
            "positions": buffers.positions[:tokens],
            "intermediate_tensors": None,
            **runner.model_state.prepare_dummy_inputs(runner.max_num_reqs, tokens),
            **self._token_types.inputs(tokens),
        }
        metadata, slot_mappings = self._metadata, self._slot_mappings
        if self._plans is None:
            layers = runner.vllm_config.compilation_config.static_forward_context
            self._plans = StepPlans(runner.model, layers, runner.dtype)
        plans, step_inputs = self._plans, runner.step_inputs

        def forward() -> Any:
            if step_inputs is not None:
                step_inputs.derive(tokens)
            with (
                plans.handed_out(metadata),
                set_forward_context(
                    metadata,
                    runner.vllm_config,
                    num_tokens=tokens,
                    slot_mapping=slot_mappings,
                    is_padding=buffers.is_padding[:tokens],
                ),
            ):
                output = runner.model(**inputs)
            if step_inputs is not None:
                step_inputs.keep(output)
            return output

        return forward
