"""Token types: which text of a pair a token belongs to (BERT's ``token_type_ids``).

vLLM makes a new tensor for every step that has a pair in it. A graph reads persistent buffers only,
so the numbers of a step are copied to one, always whole: a copy of a part would be a shape of its
own. A step without pairs has zeros there.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d

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
        state: Any = runner.model_state  # an encoder's: no other model has the argument
        self._of_request: dict[str, torch.Tensor] = state.token_type_ids
        self._written = False
        runner.model_state.prepare_inputs = self._prepare_inputs  # type: ignore[method-assign]

    def _prepare_inputs(self, input_batch: Any, req_states: Any) -> dict[str, Any]:
        """Copy the step's types; the model gets them by :meth:`inputs`."""
        if self._buffer is None or not (self._of_request or self._written):
            return {}
        types = np.zeros(self._buffer.shape[0], dtype=np.int32)
        starts, lengths = input_batch.query_start_loc_np, input_batch.num_scheduled_tokens
        for row, req_id in enumerate(input_batch.req_ids):
            found = self._of_request.get(req_id)
            if found is not None:
                first = int(input_batch.num_computed_tokens_np[row])
                part = found[first : first + int(lengths[row])].numpy()
                types[starts[row] : starts[row] + len(part)] = part
        async_tensor_h2d(types, out=self._buffer)
        self._written = bool(self._of_request)
        return {}

    def inputs(self, tokens: int) -> dict[str, torch.Tensor]:
        """What the forward of a step of ``tokens`` padded tokens takes."""
        return {} if self._buffer is None else {NAME: self._buffer[:tokens]}
