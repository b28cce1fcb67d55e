"""Let the scheduler put no more KV blocks into a step than the plan has room for.

Replaces: ``EngineCore._initialize_kv_caches`` (asks the workers for the bounds),
``Scheduler.schedule`` (has it skip running requests that do not fit) and, per scheduler,
``KVCacheManager.allocate_slots`` (does not admit waiting ones that do not fit).
Reason: vLLM bounds the rows and the tokens of a step. What attention takes of the card also grows
with the context of its rows, and rows that share a cached prefix count it once each, so together
they can have more than the whole KV cache. Requests left out run in the next step.
Unnecessary when: vLLM lets a platform or worker bound the context of a step.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from vllm.logger import init_logger

from vllm_hpu.shapes.step_budget import StepBounds, StepBudget

logger = init_logger("vllm.plugins.vllm_hpu.scheduler")

# In VllmConfig.additional_config, the place for what plugins say about an engine.
BOUNDS = "vllm_hpu_step_bounds"


@functools.cache  # once per process
def install() -> None:
    """Replace the methods. Raises ImportError if they are not the known ones."""
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.engine.core import EngineCore

    from vllm_hpu import vllm_seams as seams

    seams.check(seams.ENGINE_SEAMS)
    initialize = EngineCore._initialize_kv_caches
    schedule = Scheduler.schedule

    @functools.wraps(initialize)
    def initialize_kv_caches(self: Any, vllm_config: Any) -> Any:
        found = initialize(self, vllm_config)
        if isinstance(vllm_config.additional_config, dict):
            bounds = self.collective_rpc("step_bounds")[0]
            vllm_config.additional_config[BOUNDS] = bounds
        return found

    @functools.wraps(schedule)
    def schedule_within(self: Any, throttle_prefills: bool = False) -> Any:
        guard = _guard_of(self)
        if guard is None:
            return schedule(self, throttle_prefills)
        guard.leave_out()
        try:
            return schedule(self, throttle_prefills)
        finally:
            guard.take_back()

    core: Any = EngineCore
    core._initialize_kv_caches = initialize_kv_caches
    replaced: Any = Scheduler
    replaced.schedule = schedule_within


def _guard_of(scheduler: Any) -> _Guard | None:
    """The scheduler's guard, made at its first step; None where no step can be too large."""
    try:
        found: _Guard | None = scheduler.hpu_step_guard
    except AttributeError:
        more = scheduler.vllm_config.additional_config
        bounds = more.get(BOUNDS) if isinstance(more, dict) else None
        found = scheduler.hpu_step_guard = bounds and _Guard(scheduler, StepBounds(*bounds))
    return found


class _Guard:
    """Watches over the steps of one scheduler."""

    def __init__(self, scheduler: Any, bounds: StepBounds) -> None:
        self._scheduler = scheduler
        self._bounds = bounds
        self._budget = StepBudget(bounds)
        self._left_out: list[tuple[Any, int]] = []
        self._reported = False
        self._allocate = scheduler.kv_cache_manager.allocate_slots
        scheduler.kv_cache_manager.allocate_slots = self._allocate_slots

    def leave_out(self) -> None:
        """Have the scheduler skip running requests that would not fit, the latest first.

        They stay on its list: their rows are taken, and they are the first to be preempted.
        """
        scheduler = self._scheduler
        plan, self._budget = StepBudget(self._bounds), StepBudget(self._bounds)
        for request in scheduler.running:
            computed = request.num_computed_tokens
            new = request.num_tokens_with_spec + request.num_output_placeholders - computed
            new = min(new, scheduler.max_num_scheduled_tokens)
            if new <= 0:
                continue
            if plan.admits(new, computed):
                plan.add(new, computed)
                continue
            self._left_out.append((request, request.next_decode_eligible_step))
            request.next_decode_eligible_step = sys.maxsize
        if self._left_out:
            self._report()

    def take_back(self) -> None:
        """Let the requests be scheduled again."""
        for request, step in self._left_out:
            request.next_decode_eligible_step = step
        self._left_out.clear()

    def _allocate_slots(
        self,
        request: Any,
        num_new_tokens: int,
        num_new_computed_tokens: int = 0,
        new_computed_blocks: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        computed = (
            request.num_computed_tokens
            + num_new_computed_tokens
            + kwargs.get("num_external_computed_tokens", 0)
        )
        # Only admissions name cached blocks; a running request must get its slots.
        waiting = new_computed_blocks is not None
        if waiting and num_new_tokens and not self._budget.admits(num_new_tokens, computed):
            self._report()
            return None
        found = self._allocate(
            request, num_new_tokens, num_new_computed_tokens, new_computed_blocks, *args, **kwargs
        )
        if found is not None and num_new_tokens:
            self._budget.add(num_new_tokens, computed)
        return found

    def _report(self) -> None:
        if not self._reported:
            self._reported = True
            logger.info(
                "A step has as much context as fits into the plan (%d KV blocks in decode rows, %d "
                "in prefill rows); further requests wait for the next step. Not logged again.",
                self._bounds.decode_blocks,
                self._bounds.prefill_blocks,
            )
