"""Functions of tensors as regions that an execution mode may compile on their own."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

__all__ = ["Region", "region", "use"]

Wrap = Callable[[Callable[..., Any], bool], Callable[..., Any]]

_mode: list[Wrap | None] = [None]


class Region:
    """A plain function of tensors and static Python numbers, run as is until a mode wraps it.

    A region asks for the mode when it is called, so it does not matter whether its module was
    imported before or after the mode was chosen. It reads no other global state and no tensor's
    value on the host.

    Attributes:
        per_shape: whether what a mode makes of it differs between any two planned shapes.
    """

    def __init__(self, function: Callable[..., Any], per_shape: bool) -> None:
        update_wrapper(self, function)
        self.function = function
        self.per_shape = per_shape
        self._wrap: Wrap | None = None
        self._run = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        wrap = _mode[0]
        if wrap is not self._wrap:
            self._wrap = wrap
            self._run = self.function if wrap is None else wrap(self.function, self.per_shape)
        return self._run(*args, **kwargs)


def region(function: Callable[..., Any], per_shape: bool = False) -> Region:
    """Decorator: make ``function`` a region."""
    return Region(function, per_shape)


def use(wrap: Wrap | None) -> None:
    """Let every region run as ``wrap(function, per_shape)`` from now on; None: as it is."""
    _mode[0] = wrap
