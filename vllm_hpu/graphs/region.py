"""Attention's tensor functions as regions that an execution mode may compile on their own."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

__all__ = ["Region", "region", "use"]

Wrap = Callable[[Callable[..., Any], bool], Callable[..., Any]]


class Region:
    """A plain function of tensors and static Python numbers, run as is until a mode wraps it.

    A region reads no global state and no tensor's value on the host.

    Attributes:
        per_shape: whether what a mode makes of it differs between any two planned shapes.
    """

    def __init__(self, function: Callable[..., Any], per_shape: bool) -> None:
        update_wrapper(self, function)
        self.function = function
        self.per_shape = per_shape
        self.run = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)


_regions: list[Region] = []


def region(function: Callable[..., Any], per_shape: bool = False) -> Region:
    """Decorator: make ``function`` a region."""
    made = Region(function, per_shape)
    _regions.append(made)
    return made


def use(wrap: Wrap) -> None:
    """Let every region run as ``wrap(function, per_shape)`` from now on."""
    for one in _regions:
        one.run = wrap(one.function, one.per_shape)
