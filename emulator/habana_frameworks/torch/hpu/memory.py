"""Memory of the cards, in bytes; the functions of ``torch.hpu`` under their module's name."""

from habana_frameworks.torch._device import device_functions as _below
from habana_frameworks.torch._missing import refuse

__all__ = [
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "reset_accumulated_memory_stats",
    "reset_peak_memory_stats",
]

max_memory_allocated = _below.max_memory_allocated
max_memory_reserved = _below.max_memory_reserved
mem_get_info = _below.mem_get_info
memory_allocated = _below.memory_allocated
memory_reserved = _below.memory_reserved
memory_stats = _below.memory_stats
memory_summary = _below.memory_summary
reset_accumulated_memory_stats = _below.reset_accumulated_memory_stats
reset_peak_memory_stats = _below.reset_peak_memory_stats

__getattr__ = refuse(__name__)
