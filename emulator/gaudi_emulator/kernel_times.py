"""How long do the operators' kernels take on the host's CPU, by operator?

The rest of a step's time is the host's: Python, the dispatcher, and the device's own bookkeeping.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["KernelTime", "kernel_times", "timed_kernels"]


class KernelTime(NamedTuple):
    """Calls of one operator, launched alone or as part of a graph, and the time they took."""

    calls: int
    milliseconds: float


@contextmanager
def timed_kernels() -> Iterator[None]:
    """Measure the kernels inside, all threads together; costs two clock reads a call."""
    from . import _C

    _C.time_kernels(True)
    try:
        yield
    finally:
        _C.time_kernels(False)


def kernel_times() -> dict[str, KernelTime]:
    """What the innermost `timed_kernels` has measured so far, by operator ("aten::bmm")."""
    from . import _C

    return {
        name: KernelTime(calls, nanoseconds / 1e6)
        for name, (calls, nanoseconds) in _C.kernel_times().items()
    }
