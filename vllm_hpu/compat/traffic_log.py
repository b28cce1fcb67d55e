"""Let the server record its traffic when ``--hpu-record-profile`` asks for it.

Replaces: ``load_stat_logger_plugin_factories`` as ``vllm.v1.engine.async_llm`` calls it; the
original is called, and the recorder added.
Reason: vLLM loads every stat logger that the entry point ``vllm.stat_logger_plugins`` names, and
turns statistics on for it, even against ``--disable-log-stats``. The recorder is to do neither
unless it was asked for.
Unnecessary when: a stat logger of that entry point can decline.
"""

from __future__ import annotations

import functools
from typing import Any


def install() -> None:
    """Replace the function if VLLM_HPU_RECORD_PROFILE is set; a flag is known later (rules)."""
    from vllm_hpu.settings import settings

    if settings().record_profile:
        add_recorder()


@functools.cache  # once per process
def add_recorder() -> None:
    """Replace the function."""
    from vllm.v1.engine import async_llm

    load = async_llm.load_stat_logger_plugin_factories

    @functools.wraps(load)
    def load_stat_logger_plugin_factories() -> list[Any]:
        from vllm_hpu.metrics.traffic_recorder import TrafficLog

        return [*load(), TrafficLog]

    replaced: Any = async_llm
    replaced.load_stat_logger_plugin_factories = load_stat_logger_plugin_factories
