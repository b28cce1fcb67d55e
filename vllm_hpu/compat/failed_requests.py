"""Let the scheduler end requests that the worker could not add.

Replaces: ``Scheduler.update_from_output``, calling the original.
Reason: a worker can tell the scheduler of tokens and of lost KV blocks, but not that a request
cannot be run; whatever raises while a request is added ends the engine and all requests in it.
Unnecessary when: a worker's output can name requests that failed.
"""

from __future__ import annotations

import functools
from typing import Any

# Attribute of a ModelRunnerOutput: reasons by request.
FAILED = "hpu_failed_requests"


@functools.cache  # once per process
def install() -> None:
    """Replace the method. Raises ImportError if it is not the known one."""
    from vllm.v1.core.sched.scheduler import Scheduler

    from vllm_hpu import vllm_seams as seams

    seams.check(seams.ENGINE_SEAMS)
    update = Scheduler.update_from_output

    @functools.wraps(update)
    def update_without_failed(self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
        failed = getattr(model_runner_output, FAILED, None)
        if not failed:
            return update(self, scheduler_output, model_runner_output)
        ended = _end(self, failed)
        # Their tokens mean nothing, and vLLM passes over requests that have ended.
        outputs = update(self, scheduler_output, model_runner_output)
        _answer(outputs, ended)
        return outputs

    replaced: Any = Scheduler
    replaced.update_from_output = update_without_failed


def _end(scheduler: Any, failed: dict[str, str]) -> list[Any]:
    from vllm.v1.request import RequestStatus

    ended: list[Any] = scheduler.finish_requests(failed, RequestStatus.FINISHED_ERROR)
    return ended


def _answer(outputs: dict[int, Any], ended: list[Any]) -> None:
    """Add an output that says so to those of the request's client."""
    from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs

    for request in ended:
        mine = outputs.setdefault(request.client_index, EngineCoreOutputs())
        answer = EngineCoreOutput(
            request_id=request.request_id,
            new_token_ids=[],
            finish_reason=request.get_finished_reason(),
            events=request.take_events(),
            trace_headers=request.trace_headers,
        )
        mine.outputs = [*mine.outputs, answer]
