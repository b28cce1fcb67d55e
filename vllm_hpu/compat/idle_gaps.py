"""Let the engine core compile graphs while it waits for requests.

Replaces: ``EngineCoreProc._initialize_kv_caches`` (inherited; says before warm-up that there will
be idle gaps), ``EngineCoreProc._process_input_queue`` (uses them) and ``LLMEngine.__init__`` (an
engine driven by its caller has none worth waiting for: requests come as soon as it exists).
Reason: vLLM warms up everything before it serves, and has no hook for an idle engine.
Unnecessary when: vLLM calls the platform, a plugin or the workers while the engine is idle.
"""

from __future__ import annotations

import functools
from typing import Any

# In VllmConfig.additional_config, the place for what plugins say about an engine.
NO_GAPS = "vllm_hpu_no_idle_gaps"


@functools.cache  # once per process
def install() -> None:
    """Replace the three methods. Raises ImportError if they are not the known ones."""
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.engine.llm_engine import LLMEngine

    from vllm_hpu import vllm_seams as seams

    seams.check(seams.ENGINE_SEAMS)
    initialize = EngineCoreProc._initialize_kv_caches
    process = EngineCoreProc._process_input_queue
    start = LLMEngine.__init__

    @functools.wraps(initialize)
    def initialize_kv_caches(self: Any, vllm_config: Any) -> Any:
        self.hpu_idle_warm_up = _idle_warm_up(self)
        if self.hpu_idle_warm_up is not None:
            self.hpu_idle_warm_up.announce()
        return initialize(self, vllm_config)

    @functools.wraps(process)
    def process_input_queue(self: Any) -> None:
        warm_up = self.hpu_idle_warm_up
        if warm_up is None or not warm_up.pending or not self.is_running():
            process(self)
            return
        if self.has_work():
            process(self)
            if warm_up.busy():
                warm_up.compile_one()
            return
        # Requests that are there are taken; if none is, this comes back instead of waiting.
        blocks, self.process_input_queue_block = self.process_input_queue_block, False
        try:
            process(self)
        finally:
            self.process_input_queue_block = blocks
        if self.has_work() or not self.input_queue.empty():
            return
        wait = warm_up.seconds_until_gap()
        if wait:
            with self.input_queue.not_empty:
                if not self.input_queue.queue:
                    self.input_queue.not_empty.wait(wait)
        else:
            warm_up.compile_one()

    @functools.wraps(start)
    def start_llm_engine(self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(vllm_config.additional_config, dict):
            vllm_config.additional_config[NO_GAPS] = True
        start(self, vllm_config, *args, **kwargs)

    replaced: Any = EngineCoreProc
    replaced._initialize_kv_caches = initialize_kv_caches
    replaced._process_input_queue = process_input_queue
    engine: Any = LLMEngine
    engine.__init__ = start_llm_engine


def _idle_warm_up(engine_core: Any) -> Any:
    """The engine core's part of warm-up, or None where everything is compiled first."""
    from vllm.v1.engine.core import DPEngineCoreProc

    from vllm_hpu.options import settings_of
    from vllm_hpu.warmup.idle import IdleWarmUp

    config = engine_core.vllm_config
    told = isinstance(config.additional_config, dict) and config.additional_config.get(NO_GAPS)
    # Ranks of data parallel experts compute together; one alone cannot run a graph.
    if told or settings_of(config).full_warmup or isinstance(engine_core, DPEngineCoreProc):
        return None
    return IdleWarmUp(engine_core.collective_rpc, settings_of(config).warmup_load_seconds)
