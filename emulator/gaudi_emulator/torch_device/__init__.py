"""The module behind `torch.hpu`: devices, streams, memory and random numbers of the cards."""

from __future__ import annotations

from typing import Any

import torch

from . import memory, random, streams
from .devices import (
    can_device_access_peer,
    current_device,
    device,
    device_count,
    device_of,
    get_arch_list,
    get_device_capability,
    get_device_name,
    get_device_properties,
    get_gencode_flags,
    init,
    is_available,
    is_initialized,
    set_device,
    synchronize,
)
from .devices import is_in_bad_fork as _is_in_bad_fork
from .devices import lazy_init as _lazy_init
from .memory import (
    empty_cache,
    max_memory_allocated,
    max_memory_reserved,
    mem_get_info,
    memory_allocated,
    memory_reserved,
    memory_stats,
    memory_summary,
    memory_usage,
    reset_accumulated_memory_stats,
    reset_peak_memory_stats,
)
from .random import (
    get_rng_state,
    get_rng_state_all,
    initial_seed,
    manual_seed,
    manual_seed_all,
    seed,
    seed_all,
    set_rng_state,
    set_rng_state_all,
)
from .streams import (
    Event,
    Stream,
    StreamContext,
    current_stream,
    default_stream,
    set_stream,
    stream,
)

__all__ = [
    "Event",
    "Stream",
    "StreamContext",
    "can_device_access_peer",
    "current_device",
    "current_stream",
    "default_generators",
    "default_stream",
    "device",
    "device_count",
    "device_of",
    "empty_cache",
    "get_amp_supported_dtype",
    "get_arch_list",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "get_gencode_flags",
    "get_rng_state",
    "get_rng_state_all",
    "init",
    "initial_seed",
    "is_available",
    "is_bf16_supported",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "memory_usage",
    "random",
    "reset_accumulated_memory_stats",
    "reset_peak_memory_stats",
    "seed",
    "seed_all",
    "set_device",
    "set_rng_state",
    "set_rng_state_all",
    "set_stream",
    "stream",
    "streams",
    "synchronize",
]

# PyTorch looks these two up by their underscored names.
_INTERNAL = (_is_in_bad_fork, _lazy_init)


def get_amp_supported_dtype() -> list[torch.dtype]:
    """Data types that automatic mixed precision may cast to."""
    return [torch.bfloat16, torch.float16]


def is_bf16_supported() -> bool:
    """Whether the card computes in bfloat16; every Gaudi does."""
    return True


def __getattr__(name: str) -> Any:
    if name == "default_generators":
        return random.default_generators()
    raise AttributeError(f"torch.hpu has no attribute {name!r} on the emulated device")
