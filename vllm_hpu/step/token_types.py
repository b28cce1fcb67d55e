"""Token types: which text of a pair a token belongs to (BERT's ``token_type_ids``).

vLLM makes a new tensor for every step that has a pair in it. A graph reads persistent buffers only,
so the numbers are kept in one; a step without pairs has zeros there.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from vllm_hpu.runner.model_runner import HpuModelRunner

NAME = "token_type_ids"


class TokenTypes:
    """The buffer, int32 ``[max_num_tokens]``, filled whenever a step's inputs are prepared."""

    def __init__(self, runner: HpuModelRunner) -> None:
        self._buffer: torch.Tensor | None = None
        if NAME not in inspect.signature(runner.model.forward).parameters:
            return
        self._buffer = torch.zeros(runner.max_num_tokens, dtype=torch.int32, device=runner.device)
        self._prepare = runner.model_state.prepare_inputs
        runner.model_state.prepare_inputs = self._prepare_inputs  # type: ignore[method-assign]

    def _prepare_inputs(self, input_batch: Any, req_states: Any) -> dict[str, Any]:
        inputs = self._prepare(input_batch, req_states)
        types = inputs.get(NAME)
        if self._buffer is not None:
            self._buffer.zero_()
            if types is not None:
                self._buffer[: types.shape[0]].copy_(types)
        return inputs

    def inputs(self, tokens: int) -> dict[str, torch.Tensor]:
        """What the forward of a step of ``tokens`` padded tokens takes."""
        return {} if self._buffer is None else {NAME: self._buffer[:tokens]}
