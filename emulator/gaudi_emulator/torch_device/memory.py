"""How much of a card's memory is in use? All sizes in bytes."""

from __future__ import annotations

from typing import Any

from gaudi_emulator import _C

from .devices import card_index

_ACCUMULATED = ("allocations", "frees", "allocated_bytes_total")
_before: dict[int, dict[str, int]] = {}
"""By card: what had accumulated at the last `reset_accumulated_memory_stats`."""


def _stats(device: Any) -> dict[str, int]:
    return _C.memory_stats(card_index(device))


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Return (free, total)."""
    stats = _stats(device)
    return stats["total_bytes"] - stats["in_use_bytes"], stats["total_bytes"]


def memory_allocated(device: Any = None) -> int:
    """Bytes of the tensors and graph workspaces of this process on the card."""
    return _stats(device)["in_use_bytes"]


def max_memory_allocated(device: Any = None) -> int:
    """Largest `memory_allocated` since the start or `reset_peak_memory_stats`."""
    return _stats(device)["peak_bytes"]


def memory_usage(device: Any = None) -> int:
    """Same as `memory_allocated`: the tools of the card's driver would say it."""
    return memory_allocated(device)


def memory_reserved(device: Any = None) -> int:
    """Same as `memory_allocated`: nothing is held back between allocations."""
    return memory_allocated(device)


def max_memory_reserved(device: Any = None) -> int:
    """Same as `max_memory_allocated`."""
    return max_memory_allocated(device)


def reset_peak_memory_stats(device: Any = None) -> None:
    """Start a new peak from what is allocated now."""
    _C.reset_peak_memory(card_index(device))


def reset_accumulated_memory_stats(device: Any = None) -> None:
    """Let `memory_stats` count allocations and frees from now on."""
    stats = _stats(device)
    _before[card_index(device)] = {name: stats[name] for name in _ACCUMULATED}


def memory_stats(device: Any = None) -> dict[str, int]:
    """Figures of the card's allocator, under the names the Gaudi bridge uses, in bytes."""
    stats = _stats(device)
    active = stats["allocations"] - stats["frees"]
    for name, before in _before.get(card_index(device), {}).items():
        stats[name] -= before
    return {
        "Limit": stats["total_bytes"],
        "InUse": stats["in_use_bytes"],
        "MaxInUse": stats["peak_bytes"],
        "NumAllocs": stats["allocations"],
        "NumFrees": stats["frees"],
        "ActiveAllocs": active,
        "TotalAlloc": stats["allocated_bytes_total"],
        "NumOOM": stats["out_of_memory_errors"],
    }


def memory_summary(device: Any = None) -> str:
    """Return `memory_stats` as text, one figure per line."""
    return "\n".join(f"{name:<14}{value:>20}" for name, value in memory_stats(device).items())


def empty_cache() -> None:
    """Give unused cached memory back: freed tensors are given back at once, so none is cached."""
