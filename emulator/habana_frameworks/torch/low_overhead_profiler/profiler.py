"""``start``, ``stop`` and ``flush`` of a profiler that writes into the working directory.

Names: python_packages/habana_frameworks/torch/low_overhead_profiler/profiler.py of
HabanaAI/gaudi-pytorch-bridge. Its files are ``events_pid<process id>.json``, here the trace that
``gaudi-emulator report`` reads, and ``metrics_pid<process id>.json``, the bridge's metrics.
"""

import os
from contextlib import ExitStack
from pathlib import Path

import gaudi_emulator

from habana_frameworks.torch._missing import refuse
from habana_frameworks.torch.hpu.metrics import metrics_dump

__all__ = ["flush", "start", "stop"]

_running: list[ExitStack] = []


def start() -> None:
    """Follow launches, copies and compilations from now on; begins a new file of events."""
    if not _running:
        trace = ExitStack()
        trace.enter_context(gaudi_emulator.trace(Path(f"events_pid{os.getpid()}.json")))
        _running.append(trace)


def stop() -> None:
    """Follow no more."""
    while _running:
        _running.pop().close()


def flush() -> None:
    """Write the metrics of this process; its events are in their file since :func:`stop`."""
    metrics_dump(f"metrics_pid{os.getpid()}.json")


__getattr__ = refuse(__name__)
