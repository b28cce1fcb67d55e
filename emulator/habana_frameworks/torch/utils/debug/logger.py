"""A named logger of the bridge, which can also keep what it was told.

Names: python_packages/habana_frameworks/torch/utils/debug/logger.py of
HabanaAI/gaudi-pytorch-bridge.
"""

from typing import Any

from habana_frameworks.torch._missing import refuse
from habana_frameworks.torch.utils import _debug_C
from habana_frameworks.torch.utils._debug_C import log_level

__all__ = ["Logger", "enable_logging", "get_log_level"]


def _text(arguments: tuple[Any, ...]) -> str:
    """A message: a format with ``{}`` or ``%``, or values to be joined."""
    if arguments and isinstance(arguments[0], str):
        form, *values = arguments
        if values and "{}" in form:
            return form.format(*map(str, values))
        if values and "%" in form:
            return form % tuple(values)
    return ", ".join(map(str, arguments))


class Logger:
    """Messages with a type in front, such as ``[PT_COMPILE] text``.

    Attributes:
        data: messages kept since ``set_store_data(True)``, of every level.
    """

    def __init__(self, type: str) -> None:
        self.type = type
        self.store_data = False
        self.data: list[str] = []

    def wants(self, level: log_level) -> bool:
        """Whether a message of ``level`` goes anywhere."""
        return self.store_data or _debug_C.is_log_python_enabled(level)

    def log(self, level: log_level, args: tuple[Any, ...]) -> None:
        """Write and keep one message, as far as level and storage ask for it."""
        if not self.wants(level):
            return
        message = f"[{self.type}] {_text(args)}"
        if _debug_C.is_log_python_enabled(level):
            _debug_C.log_python(level, message)
        if self.store_data:
            self.data.append(message)

    def trace(self, *args: Any) -> None:
        """Log at level 0."""
        self.log(log_level.trace, args)

    def debug(self, *args: Any) -> None:
        """Log at level 1."""
        self.log(log_level.debug, args)

    def info(self, *args: Any) -> None:
        """Log at level 2."""
        self.log(log_level.info, args)

    def warn(self, *args: Any) -> None:
        """Log at level 3."""
        self.log(log_level.warn, args)

    def error(self, *args: Any) -> None:
        """Log at level 4."""
        self.log(log_level.error, args)

    def critical(self, *args: Any) -> None:
        """Log at level 5."""
        self.log(log_level.critical, args)

    def set_store_data(self, enable: bool) -> None:
        """Begin (or stop) to keep messages in :attr:`data`; either way it is empty afterwards."""
        self.store_data = enable
        self.data = []


def get_log_level(logger_level: str) -> log_level:
    """The level with this name.

    Raises:
        ValueError: names the levels there are.
    """
    try:
        return log_level[logger_level]
    except KeyError:
        names = ", ".join(level.name for level in log_level)
        raise ValueError(f"'{logger_level}' is not a log level; choose one of {names}") from None


def enable_logging(logger_name: str, logger_level: str) -> None:
    """Let ``logger_name`` (see :func:`._debug_C.enable_logging`) write from this level on."""
    _debug_C.enable_logging(logger_name, get_log_level(logger_level))


__getattr__ = refuse(__name__)
