"""Operators between a step's graphs as a graph of their own.

In lazy mode the bridge compiles what it has gathered since the last cut. Whatever happens to run
before and after would make another graph of it; cut on both sides it is always the same one, which
warm-up can compile. Source: ``mark_step`` of ``habana_frameworks.torch.core``, which does nothing
in the other modes.
"""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["own_graph"]


@contextmanager
def own_graph() -> Iterator[None]:
    """Let what is launched inside be one graph; its shapes and constants should not vary."""
    from habana_frameworks.torch.core import mark_step

    mark_step()
    yield
    mark_step()
