"""Device memory as the bridge counts it."""

from typing import NamedTuple

import torch


class MemoryInfo(NamedTuple):
    free_bytes: int
    total_bytes: int

    @property
    def used_bytes(self) -> int:
        return self.total_bytes - self.free_bytes


def memory_info(device: torch.device | int | None = None) -> MemoryInfo:
    """Free and total bytes of a card (``torch.hpu.mem_get_info``)."""
    free, total = torch.hpu.mem_get_info(device)
    return MemoryInfo(int(free), int(total))


def reset_peak(device: torch.device | int | None = None) -> None:
    """Let :func:`peak_bytes` start from what is allocated now."""
    torch.hpu.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device | int | None = None) -> int:
    """Most bytes allocated at once since :func:`reset_peak`."""
    return int(torch.hpu.max_memory_allocated(device))


def allocated_bytes(device: torch.device | int | None = None) -> int:
    """Bytes allocated now."""
    return int(torch.hpu.memory_allocated(device))


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether ``error``, or what caused it, says that the card's memory is used up.

    The bridge's allocator raises a plain ``RuntimeError`` that begins with "[Rank:0] FATAL ERROR ::
    MODULE:PT_DEVMEM Allocation failed" (Intel's guides for Gaudi quote it; Hugging Face Accelerate
    looks for it too).
    """
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        if isinstance(error, RuntimeError) and "MODULE:PT_DEVMEM Allocation failed" in str(error):
            return True
        error = error.__cause__
    return False
