"""The lazy mode: operators are gathered, and what has been gathered is one launch of one recipe."""

from __future__ import annotations

from . import _C, recipes

__all__ = ["KIND", "cut", "gather", "gather_nothing"]

KIND = "lazy_graph"
"""The kind under which the device counts these compilations."""

cut = _C.cut_lazy_graphs
"""Launch what is gathered; without it nothing happens. Raises what the compilation raises."""

gather_nothing = _C.gather_nothing
"""Launch what is gathered, and every later operator on its own."""


def gather(max_operators: int) -> None:
    """Gather operators from now on, all threads, each card into a graph of its own.

    Args:
        max_operators: a graph that has so many is launched.
    """
    _C.gather_operators(_obtain, max_operators)


def _obtain(graph: str, operators: int) -> None:
    recipes.obtain(KIND, graph, f"{operators} operators", operators)
