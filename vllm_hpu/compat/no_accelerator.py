"""Let a process that drives no card end: there is no cache of device memory to give back.

Replaces: ``torch.accelerator.empty_cache`` and ``empty_host_cache``, where PyTorch knows no
accelerator; elsewhere the originals are called.
Reason: the engine core of several workers ends with both (``cleanup_dist_env_and_memory`` in
``vllm/distributed/parallel_state.py``), and they raise in a process that has not loaded the device.
Unnecessary when: they return without a device, or vLLM calls them in workers only.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch


@functools.cache  # once per process
def install() -> None:
    """Put a question before both: is there an accelerator?"""
    accelerator: Any = torch.accelerator
    for name in ("empty_cache", "empty_host_cache"):
        setattr(accelerator, name, _where_there_is_one(getattr(accelerator, name)))


def _where_there_is_one(function: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        if torch.accelerator.current_accelerator() is not None:
            function()

    return call
