"""Route ``torch.accelerator`` to the device where stock PyTorch does not know it.

Replaces: functions of ``torch.accelerator`` that vLLM's worker, memory profiler and parallel
state call.
Reason: PyTorch 2.11-2.13 asks a ``c10::DeviceAllocator`` for memory, which HPU does not register,
and may not report HPU as the current accelerator at all.
Unnecessary when: :func:`needed` is False.
"""

import functools
from typing import Any

import torch


def reported() -> bool:
    """Whether PyTorch knows HPU as the current accelerator."""
    accelerator = torch.accelerator.current_accelerator()
    return accelerator is not None and accelerator.type == "hpu"


def needed() -> bool:
    """Whether stock ``torch.accelerator`` fails for the device."""
    if not reported():
        return True
    try:
        torch.accelerator.get_memory_info(0)
        torch.accelerator.memory_stats(0)
    except RuntimeError:
        return True
    return False


def _index(device: Any) -> int | None:
    if device is None or isinstance(device, int):
        return device
    return torch.device(device).index


def _by_index(function: Any) -> Any:
    return lambda device=None: function(_index(device))


@functools.cache  # once per process
def install() -> None:
    """Replace what PyTorch cannot answer for the device, and nothing else."""
    if not needed():
        return
    if not reported():
        _install_device()
    _install_memory()


def _install_device() -> None:
    accelerator: Any = torch.accelerator
    hpu: Any = torch.hpu
    accelerator.is_available = hpu.is_available
    accelerator.device_count = hpu.device_count
    accelerator.current_device_index = hpu.current_device
    accelerator.set_device_index = lambda device: hpu.set_device(_index(device))
    accelerator.synchronize = _by_index(hpu.synchronize)
    accelerator.current_stream = _by_index(hpu.current_stream)
    accelerator.set_stream = hpu.set_stream


def _install_memory() -> None:
    accelerator: Any = torch.accelerator
    hpu: Any = torch.hpu
    accelerator.get_memory_info = _by_index(hpu.mem_get_info)
    accelerator.memory_stats = _by_index(hpu.memory_stats)
    accelerator.memory_reserved = _by_index(hpu.memory_reserved)
    accelerator.memory_allocated = _by_index(hpu.memory_allocated)
    accelerator.max_memory_allocated = _by_index(hpu.max_memory_allocated)
    accelerator.reset_peak_memory_stats = _by_index(hpu.reset_peak_memory_stats)
    accelerator.empty_cache = hpu.empty_cache
    # Pinned host memory is not cached by the bridge, so there is nothing to give back.
    accelerator.empty_host_cache = lambda: None
