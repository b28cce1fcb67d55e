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
