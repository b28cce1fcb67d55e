"""Pooling as one launch per task of a step, over all rows or tokens there can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vllm.pooling_params import PoolingParams
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.outputs import PoolerOutput
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.pool.pooling_runner import PoolingRunner
from vllm.v1.worker.gpu.states import RequestState

from vllm_hpu.pooling.pooled import Pooled, is_planned, is_tokenwise, pool

if TYPE_CHECKING:
    from vllm_hpu.runner.model_runner import HpuModelRunner
    from vllm_hpu.step.inputs import StepInputs

__all__ = ["GraphPoolingRunner"]


class GraphPoolingRunner(PoolingRunner):
    """vLLM's pooling runner whose poolers are graphs of one shape.

    Steps with a task whose pooler no graph knows (sparse embeddings, step rewards, models with a
    pooler of their own) take vLLM's way.
    """

    takes_room = True

    def __init__(self, runner: HpuModelRunner, inputs: StepInputs) -> None:
        super().__init__(runner.model, runner.vllm_config)
        self._hpu, self._inputs = runner, inputs
        self._hidden = inputs.keep_every()
        self._sizes = torch.zeros(runner.max_num_reqs, dtype=torch.int32, device=runner.device)
        self._sizes_staged = False
        self._copied: torch.cuda.Event | None = None
        pooler = runner.model.pooler
        every: Mapping[str, Any] = getattr(pooler, "poolers_by_task", None) or dict.fromkeys(
            self.supported_tasks, pooler
        )
        self._poolers: dict[str | None, Any] = {
            task: one
            for task, one in every.items()
            if task in self.supported_tasks and is_planned(one)
        }
        self._pending = sorted(str(task) for task in self._poolers)

    def pool(
        self, hidden_states: torch.Tensor, input_batch: InputBatch, req_states: RequestState
    ) -> tuple[PoolerOutput, list[bool]]:
        """The results of the step's rows, in their order, and which of them are complete."""
        rows = len(input_batch.req_ids)
        states = input_batch.idx_mapping_np[:rows]
        params = [self.pooling_params[row] for row in states.tolist()]
        if not {one.task for one in params} <= self._poolers.keys():
            return super().pool(hidden_states, input_batch, req_states)
        self._stage_sizes(params)
        pooled = {task: self._launch(task) for task in sorted({str(one.task) for one in params})}
        lengths = input_batch.num_scheduled_tokens[:rows]
        ends = input_batch.num_computed_tokens_np[:rows] + lengths
        finished = (ends == req_states.prompt_len.np[states]).tolist()
        output = self._whole(pooled, params, finished)
        if output is None:
            starts = input_batch.query_start_loc_np
            output = [
                self._result(
                    pooled[str(one.task)], one, row, slice(starts[row], starts[row + 1]), done
                )
                for row, (one, done) in enumerate(zip(params, finished, strict=True))
            ]
            for row, state in enumerate(states.tolist()):
                output[row] = self._joined(output[row], params[row], state, finished[row])
        output = self.late_interaction_runner.postprocess_pooler_output(
            raw_pooler_output=output,
            pooling_params=params,
            req_ids=input_batch.req_ids,
            finished_mask=finished,
        )
        return output, finished

    def keep_until(self, copied: torch.cuda.Event) -> None:
        """The next launch must not start before ``copied``: the host still reads this one's."""
        self._copied = copied

    def warm_up_one(self) -> bool:
        """Compile the graph of the next task; False when none is left."""
        if not self._pending:
            return False
        self._launch(self._pending.pop(0))
        return True

    def launch_first(self) -> None:
        """Pool for the task whose results are largest: those per token, if there are any."""
        if self._poolers:
            self._launch(
                str(max(self._poolers, key=lambda task: is_tokenwise(self._poolers[task])))
            )

    def _launch(self, task: str) -> Pooled:
        if self._copied is not None:
            self._hpu.main_stream.wait_event(self._copied)
            self._copied = None
        pooler = self._poolers[task]
        starts = self._inputs.rows.query_start_loc[: self._sizes.shape[0] + 1]
        result: Pooled = self._hpu.launcher.launch(
            ("pool", task), lambda: pool(pooler, self._hidden, starts, self._sizes)
        )
        return result

    def _stage_sizes(self, params: list[PoolingParams]) -> None:
        wanted = any(one.dimensions for one in params)
        if not (wanted or self._sizes_staged):
            return
        self._sizes_staged = wanted
        sizes = np.zeros(self._sizes.shape[0], dtype=np.int32)
        sizes[: len(params)] = [one.dimensions or 0 for one in params]
        async_tensor_h2d(sizes, out=self._sizes)

    def _whole(
        self, pooled: dict[str, Pooled], params: list[PoolingParams], finished: list[bool]
    ) -> torch.Tensor | None:
        """All rows as one tensor [rows, D], where they ask for the same; else None."""
        kinds = {(one.task, one.use_activation, one.dimensions) for one in params}
        task, activated, dimensions = next(iter(kinds))
        if len(kinds) > 1 or dimensions or is_tokenwise(self._poolers[task]) or not all(finished):
            return None
        return pooled[str(task)][bool(activated)][: len(params)]

    def _result(
        self, pooled: Pooled, params: PoolingParams, row: int, tokens: slice, finished: bool
    ) -> torch.Tensor | None:
        """A row's result [D] or [tokens, D]; None for one that is neither complete nor kept."""
        which = pooled[bool(params.use_activation)]
        per_token = is_tokenwise(self._poolers[params.task])
        if not (finished or per_token):
            return None
        result = which[tokens] if per_token else which[row]
        return result if params.dimensions is None else result[..., : params.dimensions]

    def _joined(
        self, result: torch.Tensor | None, params: PoolingParams, state: int, finished: bool
    ) -> torch.Tensor | None:
        """Results per token wait on the host for those of the prompt's later tokens."""
        if result is None or not is_tokenwise(self._poolers[params.task]):
            return result
        waiting = self.pooling_states[state].hidden_states_cache
        if finished and not waiting:
            return result
        waiting.append(result.cpu())
        if not finished:
            return None
        joined = torch.cat(waiting)
        self.pooling_states[state].clean()
        return joined
