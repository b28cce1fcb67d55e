"""Notice an engine that hangs.

Replaces: ``AsyncLLM.__init__`` (starts to watch), ``EngineCoreProc.run_busy_loop``,
``_process_engine_step`` and ``_handle_client_request`` (show signs of life); all call the original.
Reason: vLLM notices processes that end. One that is stopped, or waits for a card that does not
answer, keeps its requests waiting for ever, and ``/health`` says 200.
Unnecessary when: vLLM's API server notices an engine core that was stopped by a signal, and one
whose step does not end.
"""

from __future__ import annotations

import functools
from typing import Any


@functools.cache  # once per process
def install() -> None:
    """Replace the methods. Raises ImportError if they are not the known ones."""
    from vllm.v1.engine import EngineCoreRequestType
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.core import EngineCoreProc

    from vllm_hpu import vllm_seams as seams

    seams.check(seams.LIVENESS_SEAMS)
    start = AsyncLLM.__init__
    loop = EngineCoreProc.run_busy_loop
    step = EngineCoreProc._process_engine_step
    handle = EngineCoreProc._handle_client_request

    @functools.wraps(start)
    def start_async_llm(self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        from vllm_hpu.liveness import monitor
        from vllm_hpu.options import settings_of
        from vllm_hpu.settings import metrics_folder

        start(self, vllm_config, *args, **kwargs)
        monitor.start(self, metrics_folder()[0], settings_of(vllm_config).hang_seconds)

    @functools.wraps(loop)
    def run_busy_loop(self: Any) -> None:
        _pulse_of(self)
        loop(self)

    @functools.wraps(step)
    def process_engine_step(self: Any) -> bool:
        with _pulse_of(self).step():
            return step(self)

    @functools.wraps(handle)
    def handle_client_request(self: Any, request_type: Any, request: Any) -> None:
        if request_type != EngineCoreRequestType.UTILITY:
            handle(self, request_type, request)
            return
        from vllm_hpu.liveness.pulse import away

        # Loads an adapter, writes a profile, calls the workers: as long as it takes.
        with away():
            handle(self, request_type, request)

    replaced: Any = AsyncLLM
    replaced.__init__ = start_async_llm
    replaced = EngineCoreProc
    replaced.run_busy_loop = run_busy_loop
    replaced._process_engine_step = process_engine_step
    replaced._handle_client_request = handle_client_request


def _pulse_of(core: Any) -> Any:
    """Signs of life of an engine core."""
    if not hasattr(core, "hpu_pulse"):
        from vllm_hpu.liveness import pulse
        from vllm_hpu.liveness.watch import ENGINE
        from vllm_hpu.settings import metrics_folder

        core.hpu_pulse = pulse.start(metrics_folder()[0], ENGINE)
    return core.hpu_pulse
