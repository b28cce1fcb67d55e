"""Let vLLM's profiler of kind "torch" record Gaudi cards.

Replaces: nothing; adds the device type to four tables of ``vllm.profiler.wrapper``, which name what
PyTorch's profiler records on each device, and which kinds of profilers a device has.
Reason: a device type that is not in them is refused at start, and there is no hook for more.
Unnecessary when: vLLM's tables know ``hpu``, or ask the platform.
"""

from __future__ import annotations

from typing import Any


def install() -> None:
    """Add the entries. Idempotent."""
    import torch
    from vllm.profiler import wrapper

    tables: Any = wrapper
    # The bridge's records come under PyTorch's own name for this device.
    tables.TorchProfilerActivityMap["HPU"] = torch.profiler.ProfilerActivity.HPU
    tables._DEFAULT_TORCH_PROFILER_ACTIVITIES["hpu"] = ("CPU", "HPU")
    tables._SUPPORTED_TORCH_PROFILER_ACTIVITIES["hpu"] = frozenset(("CPU", "HPU"))
    tables._SUPPORTED_PROFILER_KINDS["hpu"] = frozenset(("torch",))
