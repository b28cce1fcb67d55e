"""Refuse to sleep where sleep mode is off, before the engine is paused for it.

Replaces: ``EngineCore.sleep`` and ``EngineCore.release_kv_cache_memory``; the originals are called
where sleep mode is on.
Reason: vLLM first pauses the scheduler and then asks the workers, which cannot: the caller gets an
error, the scheduler stays paused, and the next request waits for ever.
Unnecessary when: vLLM refuses such a call itself, or resumes after the error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


@functools.cache  # once per process
def install() -> None:
    """Replace the methods. Raises ImportError if they are not the known ones."""
    from vllm.v1.engine.core import EngineCore

    from vllm_hpu import vllm_seams as seams

    seams.check(seams.SLEEP_SEAMS)
    replaced: Any = EngineCore
    replaced.sleep = _refusing(EngineCore.sleep, "sleep")
    replaced.release_kv_cache_memory = _refusing(
        EngineCore.release_kv_cache_memory, "release_kv_cache_memory"
    )


def _refusing(original: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The method, which raises where the engine cannot give memory back."""

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        level = args[0] if args else kwargs.get("level", 1)
        pauses_only = name == "sleep" and level < 1
        if not pauses_only and not self.vllm_config.model_config.enable_sleep_mode:
            from vllm_hpu.errors import UnsupportedFeatureError

            raise UnsupportedFeatureError(
                f"{name} is not supported on Gaudi by this version of vllm-hpu",
                "A card's memory stays with the engine that took it",
                "Stop the engine instead, or pause it with sleep level 0",
            )
        return original(self, *args, **kwargs)

    return method
