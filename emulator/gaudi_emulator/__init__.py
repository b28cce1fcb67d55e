"""An Intel Gaudi device for PyTorch, emulated on the host.

`activate()` makes `torch.device("hpu")` work in this process; importing this package does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from . import faults
from .config import Config
from .counters import Compilation, Counters, counters, launch_region, recent_compilations
from .leaks import Leaked, LeakedAllocation, leaks
from .memory_layout import MemoryLayout, memory_layout

if TYPE_CHECKING:
    from .trace_writer import Trace
    from .work import Work

__all__ = [
    "Compilation",
    "Config",
    "Counters",
    "Leaked",
    "LeakedAllocation",
    "MemoryLayout",
    "activate",
    "counters",
    "faults",
    "is_active",
    "launch_region",
    "leaks",
    "measure",
    "memory_layout",
    "recent_compilations",
    "trace",
]

_OWN_DISTRIBUTION = "gaudi-emulator"
_active: Config | None = None


def _refuse_to_shadow() -> None:
    providers = set(metadata.packages_distributions().get("habana_frameworks", ()))
    others = sorted(providers - {_OWN_DISTRIBUTION})
    if others:
        raise ImportError(
            f"habana_frameworks is provided by {', '.join(others)}: this environment has a real "
            "Gaudi bridge, and the emulator must not shadow it. Uninstall gaudi-emulator here."
        )


def is_active() -> bool:
    """Whether `activate()` has run in this process."""
    return _active is not None


def activate() -> Config:
    """Register the emulated device with PyTorch, once per process, and return its configuration.

    Raises:
        ValueError: a variable of the environment has no valid value.
        ImportError: the C++ part has not been built.
    """
    global _active  # noqa: PLW0603 - the process has one device
    import torch  # noqa: F401 - may bring the bridge, and with it the device (habana_frameworks.autoload)

    if _active is None:
        from . import config as configuration

        settings = configuration.read()
        from . import registration

        registration.register(settings)
        _active = settings
        from . import torch_profiler

        torch_profiler.install(_peaks(settings))
        if settings.trace:
            from .trace_writer import start_process_trace

            start_process_trace(Path(settings.trace), settings.device_name, _peaks(settings))
    return _active


def _peaks(settings: Config):
    from .roofline import peaks_of

    return peaks_of(settings.device_name, settings.launch_us)


@contextmanager
def measure() -> Iterator[Work]:
    """Count FLOPs and bytes of what is launched inside, and predict what a card would need.

    The prediction is for the card of GAUDI_EMULATOR_DEVICE, see docs/cost.md.
    """
    from .work import measure as measure_for

    with measure_for(_peaks(activate())) as work:
        yield work


@contextmanager
def trace(path: str | Path) -> Iterator[Trace]:
    """Write a trace of what this process does inside, for Perfetto or `gaudi-emulator report`."""
    from .trace_writer import write_trace

    settings = activate()
    with write_trace(Path(path), settings.device_name, _peaks(settings)) as written:
        yield written


_refuse_to_shadow()
