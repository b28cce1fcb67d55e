"""A request that cannot be added to the worker's tables ends alone.

The requests of a step are added together. When that raises, they are taken back and added one by
one; one that raises again is added without what it asked for, since the step has been planned with
its tokens, and is named in the step's output. The scheduler ends it before it looks at the tokens
(``compat/failed_requests.py``).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vllm.logger import init_logger
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
from vllm.v1.worker.gpu.buffer_utils import StagedWriteTensor

from vllm_hpu.compat.failed_requests import FAILED

if TYPE_CHECKING:
    from vllm_hpu.runner.model_runner import HpuModelRunner

logger = init_logger("vllm.plugins.vllm_hpu.runner")

Add = Callable[[SchedulerOutput], None]


class FailedRequests:
    """Adds requests, and remembers which could not be until a step's output tells."""

    def __init__(self, runner: HpuModelRunner) -> None:
        self._runner = runner
        self._reasons: dict[str, str] = {}

    def add(self, step: SchedulerOutput, add: Add) -> None:
        """Add a step's new requests by ``add``, one by one where that raises.

        Raises what ``add`` raises for a request that asks for nothing: then it is not the request.
        """
        try:
            add(step)
        except Exception:
            self._take_back(step.scheduled_new_reqs)
            for request in step.scheduled_new_reqs:
                self._add_one(step, request, add)

    def tell(self, output: Any) -> None:
        """Name the failed requests in a step's output; nothing to do in any usual step."""
        if self._reasons and output is not None:
            # An output whose tokens are still on the device carries the one that is sent.
            sent = getattr(output, "model_runner_output", output)
            setattr(sent, FAILED, self._reasons)
            self._reasons = {}

    def _add_one(self, step: SchedulerOutput, request: NewRequestData, add: Add) -> None:
        try:
            add(_only(step, request))
        except Exception as error:
            logger.exception("Request %s cannot be added and ends.", request.req_id)
            self._take_back([request])
            add(_only(step, _asking_nothing(request)))
            self._reasons[request.req_id] = f"{type(error).__name__}: {error}"

    def _take_back(self, requests: list[NewRequestData]) -> None:
        runner = self._runner
        # In this order the rows are given out again in the order that they were, and what is staged
        # for the block tables is staged again. Those are written later, for all requests at once.
        for request in reversed(requests):
            runner._remove_request(request.req_id)
        for owner in (runner.req_states, runner.model_state, runner.sampler):
            for staged in _staged_writes(owner, depth=3):
                staged.clear_staged_writes()


def _only(step: SchedulerOutput, request: NewRequestData) -> SchedulerOutput:
    one = copy.copy(step)
    one.scheduled_new_reqs = [request]
    return one


def _asking_nothing(request: NewRequestData) -> NewRequestData:
    """The same tokens without what was asked beside them."""
    plain = copy.copy(request)
    plain.lora_request = None
    if request.sampling_params is not None:
        plain.sampling_params = SamplingParams(temperature=0.0, max_tokens=1)
    if request.pooling_params is not None:
        plain.pooling_params = PoolingParams(task=request.pooling_params.task)
    return plain


def _staged_writes(owner: Any, depth: int) -> Iterator[StagedWriteTensor]:
    """The tensors with staged writes that an object holds, in lists and parts of it, too."""
    if isinstance(owner, StagedWriteTensor):
        yield owner
    elif depth:
        parts = owner if isinstance(owner, list) else getattr(owner, "__dict__", {}).values()
        for part in list(parts):
            yield from _staged_writes(part, depth - 1)
