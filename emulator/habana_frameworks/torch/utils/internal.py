"""The execution mode of the bridge."""

import functools
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

from habana_frameworks.torch._missing import refuse

__all__ = ["Timer", "is_lazy", "lazy_only"]

_TRUE_UNLESS = "0"


class _Mode:
    """Read once, like the bridge does: a later change of the variable has no effect."""

    lazy: bool | None = None


def is_lazy() -> bool:
    """Whether the lazy mode is on: ``PT_HPU_LAZY_MODE`` is set to anything but ``0``.

    The default is 0 (eager and ``torch.compile``), as in the newer public commit of the bridge
    (scripts/env_flags.yaml).
    """
    if _Mode.lazy is None:
        _Mode.lazy = os.environ.get("PT_HPU_LAZY_MODE", _TRUE_UNLESS) != _TRUE_UNLESS
    return _Mode.lazy


def lazy_only(func: Callable) -> Callable[..., None]:
    """Decorate a function that has an effect in the lazy mode only.

    Outside of it ``func`` is never called; a warning says so when it is decorated. The result of a
    call is ``None`` in either mode. Source: utils/internal.py of HabanaAI/gaudi-pytorch-bridge.
    """
    if is_lazy():

        @functools.wraps(func)
        def call(*args: Any, **kwargs: Any) -> None:
            func(*args, **kwargs)

        return call
    warnings.warn(f"{func.__name__}() has an effect in the lazy mode only", stacklevel=2)

    @functools.wraps(func)
    def call_nothing(*args: Any, **kwargs: Any) -> None:
        pass

    return call_nothing


class Timer:
    """Context that measures the host's time in it.

    Attributes:
        start_t, end_t: seconds of ``time.perf_counter``, None before the context begins and ends.
    """

    def __init__(self) -> None:
        self.start_t: float | None = None
        self.end_t: float | None = None

    def __enter__(self) -> "Timer":
        self.start_t = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.end_t = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds between begin and end."""
        if self.start_t is None or self.end_t is None:
            raise RuntimeError("Timer: ask for the time after the `with` block has ended")
        return self.end_t - self.start_t


__getattr__ = refuse(__name__)
