"""The bridge's flags: ``get_<flag>()``, ``set_<flag>(value)``, ``env_setting(name, value)``.

Values come from the environment when the bridge is imported; afterwards only settable flags
change, through this module. Source: python_packages/habana_frameworks/torch/internal and
scripts/env_flags.yaml of HabanaAI/gaudi-pytorch-bridge.
"""

import contextlib
import os
from collections.abc import Callable, Iterator

from habana_frameworks.torch.utils.internal import is_lazy

from .flags import FLAGS, FlagValue, parse

__all__ = ["env_setting", "on_change"]

_observers: dict[str, Callable[[FlagValue], None]] = {}


def _initial() -> dict[str, FlagValue]:
    values = {
        name: parse(name, os.environ[name]) if name in os.environ else flag.default
        for name, flag in FLAGS.items()
    }
    if "PT_ENABLE_INT64_SUPPORT" not in os.environ:
        # env_flags.yaml: the default is true outside the lazy mode.
        values["PT_ENABLE_INT64_SUPPORT"] = not is_lazy()
    return values


_values = _initial()


def on_change(name: str, observer: Callable[[FlagValue], None]) -> None:
    """Call ``observer(value)`` now and whenever the flag ``name`` changes."""
    _observers[name] = observer
    observer(_values[name])


def _set(name: str, value: FlagValue) -> None:
    expected = type(FLAGS[name].default)
    _values[name] = expected(value)
    if name in _observers:
        _observers[name](_values[name])


@contextlib.contextmanager
def env_setting(name: str, value: FlagValue) -> Iterator[None]:
    """Set the flag ``name`` inside the ``with`` block; the old value returns on every exit.

    Raises:
        KeyError: the flag is unknown, or cannot be set at run time.
    """
    if name not in FLAGS:
        raise KeyError(f"{name} is not a flag of the bridge")
    if not FLAGS[name].settable:
        raise KeyError(f"{name} cannot be set at run time; set it in the environment before import")
    before = _values[name]
    _set(name, value)
    try:
        yield
    finally:
        _set(name, before)


def __getattr__(name: str) -> Callable:
    """``get_<flag>`` and ``set_<flag>``, flag in lower case."""
    verb, _, flag = name.partition("_")
    flag = flag.upper()
    if verb == "get" and flag in FLAGS:
        return lambda: _values[flag]
    if verb == "set" and flag in FLAGS and FLAGS[flag].settable:
        return lambda value: _set(flag, value)
    raise AttributeError(
        f"module '{__name__}' has no attribute '{name}': "
        + (
            f"{flag} cannot be set at run time"
            if verb == "set" and flag in FLAGS
            else "the emulated bridge has no such flag"
        ),
        name=name,
    )
