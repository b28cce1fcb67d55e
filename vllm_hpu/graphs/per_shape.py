"""A function that is compiled for each planned shape on its own.

``torch.compile`` keeps what it made of a function in one list: a call tries the guards of one entry
after the other, and a compilation goes through all that came before. A plan has a hundred shapes,
and a step knows which is its own. So each shape has a copy of the function, with a list of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

__all__ = ["Keyed", "running"]

_running: list[Hashable] = [None]


@contextmanager
def running(key: Hashable) -> Iterator[None]:
    """Let the regions that are called inside the block be those of the shape ``key``."""
    _running.append(key)
    try:
        yield
    finally:
        _running.pop()


class Keyed:
    """Calls ``compile_`` of a copy of ``function``, one for each shape that runs.

    Outside of :func:`running` all calls share one.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        compile_: Callable[[Callable[..., Any]], Callable[..., Any]],
    ) -> None:
        self._function = function
        self._compile = compile_
        self._compiled: dict[Hashable, Callable[..., Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = _running[-1]
        run = self._compiled.get(key)
        if run is None:
            run = self._compiled[key] = self._compile(self._copy(len(self._compiled)))
        return run(*args, **kwargs)

    def _copy(self, number: int) -> Callable[..., Any]:
        """The function with code of its own; Dynamo keeps its list by the code object."""
        function: Any = self._function
        code = function.__code__.replace(co_name=f"{function.__code__.co_name}_{number}")
        copy = FunctionType(
            code,
            function.__globals__,
            function.__name__,
            function.__defaults__,
            function.__closure__,
        )
        copy.__kwdefaults__ = function.__kwdefaults__
        copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
        return copy
