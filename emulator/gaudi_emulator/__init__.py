"""An Intel Gaudi device for PyTorch, emulated on the host.

`activate()` makes `torch.device("hpu")` work in this process; importing this package does not.
"""

from __future__ import annotations

from importlib import metadata

from .config import Config
from .counters import Compilation, Counters, counters, launch_region, recent_compilations

__all__ = [
    "Compilation",
    "Config",
    "Counters",
    "activate",
    "counters",
    "is_active",
    "launch_region",
    "recent_compilations",
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
    if _active is None:
        from . import config as configuration

        settings = configuration.read()
        from . import registration

        registration.register(settings)
        _active = settings
    return _active


_refuse_to_shadow()
