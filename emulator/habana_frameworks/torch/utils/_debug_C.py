"""The bridge's log: levels, and the file ``$HABANA_LOGS/pytorch_log.txt``.

Names: python_packages/habana_frameworks/torch/utils/_debug_C.py of HabanaAI/gaudi-pytorch-bridge,
and docs.habana.ai, "Runtime Environment Variables" (``LOG_LEVEL_ALL``, ``LOG_LEVEL_ALL_PT``,
``HABANA_LOGS``). The emulated bridge has one component that writes: the Python part.
"""

import enum
import os
from pathlib import Path

from habana_frameworks.torch._missing import refuse

__all__ = [
    "enable_logging",
    "get_pt_logging_levels",
    "is_log_python_enabled",
    "log_level",
    "log_python",
]


class log_level(enum.IntEnum):
    """Levels by rising severity; the values are those of ``LOG_LEVEL_ALL``."""

    trace = 0
    debug = 1
    info = 2
    warn = 3
    error = 4
    critical = 5


_COMPONENT = "PT_PYTHON"
_VARIABLES = (f"LOG_LEVEL_{_COMPONENT}", "LOG_LEVEL_ALL_PT", "LOG_LEVEL_ALL")


def _initial_level() -> log_level:
    for variable in _VARIABLES:
        text = os.environ.get(variable)
        if text is None:
            continue
        if not text.isdigit() or int(text) not in set(log_level):
            raise ValueError(f"{variable}='{text}' is not a log level; give a number from 0 to 5")
        return log_level(int(text))
    return log_level.error


_levels = {_COMPONENT: _initial_level()}


def enable_logging(logger_name: str, level: log_level) -> None:
    """Write messages of ``level`` and above.

    Args:
        logger_name: ``LOG_LEVEL_ALL``, ``LOG_LEVEL_ALL_PT`` or ``LOG_LEVEL_PT_PYTHON``.

    Raises:
        ValueError: no such logger here.
    """
    if logger_name not in _VARIABLES:
        raise ValueError(
            f"enable_logging: the emulated bridge has no logger '{logger_name}'; it has "
            f"{', '.join(_VARIABLES)}"
        )
    _levels[_COMPONENT] = log_level(level)


def get_pt_logging_levels() -> dict[str, int]:
    """The level of every component by its name, without the prefix ``LOG_LEVEL_``."""
    return {name: int(level) for name, level in _levels.items()}


def is_log_python_enabled(level: log_level) -> bool:
    """Whether a message of ``level`` is written."""
    return level >= _levels[_COMPONENT]


def log_python(level: log_level, message: str) -> None:
    """Append ``message`` to ``pytorch_log.txt`` in ``$HABANA_LOGS`` (default
    ``~/.habana_logs``), made if it does not exist."""
    folder = Path(os.environ.get("HABANA_LOGS") or Path.home() / ".habana_logs")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "pytorch_log.txt").open("a", encoding="utf-8") as log:
        log.write(f"[{_COMPONENT}][{log_level(level).name}] {message}\n")


__getattr__ = refuse(__name__)
