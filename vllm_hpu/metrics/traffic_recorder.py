"""Records the traffic of a server into a profile, from the statistics that vLLM logs."""

from __future__ import annotations

import atexit
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm.logger import init_logger
from vllm.v1.metrics.loggers import StatLoggerBase

from vllm_hpu.options import settings_of
from vllm_hpu.shapes.traffic import TrafficRecorder

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.metrics.stats import IterationStats, SchedulerStats

logger = init_logger("vllm.plugins.vllm_hpu.traffic")

WRITE_SECONDS = 10.0
"""Time between two writes of the profile under load."""


class TrafficLog(StatLoggerBase):
    """One of vLLM's stat loggers: it runs in the API server, after a step's answers are out.

    Lengths are recorded when a request ends, the number in flight with every step.
    """

    def __init__(self, vllm_config: VllmConfig, engine_index: int = 0) -> None:
        # Empty for an engine beside one that records, in the same process.
        file = settings_of(vllm_config).record_profile
        self._file = Path(file).absolute() if file else None
        self._recorder = TrafficRecorder()
        self._new = False
        self._written = time.monotonic()
        atexit.register(self._write)

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Count a step (``scheduler_stats``) and the requests that it ended."""
        finished = iteration_stats.finished_requests if iteration_stats is not None else ()
        for request in finished:
            self._recorder.finished(
                request.num_prompt_tokens, request.num_generation_tokens, request.num_cached_tokens
            )
        self._new = True
        if scheduler_stats is not None:
            # What a step has answered is no longer counted by the scheduler.
            self._recorder.step(
                scheduler_stats.num_running_reqs
                + scheduler_stats.num_waiting_reqs
                + scheduler_stats.num_skipped_waiting_reqs
                + len(finished)
            )
        if time.monotonic() - self._written >= WRITE_SECONDS:
            self._write()

    def log(self) -> None:
        """vLLM's regular log: also without load, what came last is written."""
        self._write()

    def log_engine_initialized(self) -> None:
        if self._file is not None:
            logger.info("The traffic is recorded in %s.", self._file)

    def _write(self) -> None:
        self._written = time.monotonic()
        if self._file is None or not self._new or not self._recorder:
            return
        self._new = False
        try:
            self._recorder.traffic().write(self._file)
        except OSError as error:
            logger.warning_once(
                "The traffic cannot be recorded: %s. Correct or remove --hpu-record-profile "
                "(VLLM_HPU_RECORD_PROFILE).",
                str(error),
            )
