"""Let the first layer of a model share the recipe of the others.

In most models a layer gets what the layers before it have added up as ``residual``, and the first
one gets None, which is another graph for every shape. Where the layer only normalises its input
then, a residual of zeros means the same, to the bit, and the first layer is like the others.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn

__all__ = ["starts_from_zero", "with_residual"]

_NAME, _SOURCE = "residual", "hidden_states"

_BRANCH = ast.parse(
    """
if residual is None:
    residual = hidden_states
    hidden_states = self.input_layernorm(hidden_states)
else:
    hidden_states, residual = self.input_layernorm(hidden_states, residual)
"""
).body[0]


def with_residual(layer: nn.Module, run: Callable[..., Any]) -> Callable[..., Any]:
    """``run``, the forward of ``layer``, which gets zeros for None where that is the same."""
    kind: Any = type(layer)
    # A draft head may have put the identity, which takes no residual, in the place of the norm.
    if not starts_from_zero(kind) or isinstance(layer.input_layernorm, nn.Identity):
        return run
    names = list(inspect.signature(type(layer).forward).parameters)[1:]
    place, source = names.index(_NAME), names.index(_SOURCE)

    def forward(*args: Any, **kwargs: Any) -> Any:
        if len(args) > place:
            if args[place] is None:
                hidden = args[source] if len(args) > source else kwargs[_SOURCE]
                args = (*args[:place], torch.zeros_like(hidden), *args[place + 1 :])
        elif kwargs.get(_NAME) is None:
            hidden = args[source] if len(args) > source else kwargs[_SOURCE]
            kwargs[_NAME] = torch.zeros_like(hidden)
        return run(*args, **kwargs)

    return forward


@functools.cache
def starts_from_zero(kind: Hashable) -> bool:
    """Whether zeros are the same to layers of this class as no residual.

    That is read off the source of its ``forward``: None is asked for once, in the branch that
    nearly all of vLLM's models have word for word. vLLM's norms add the residual before they
    normalise.
    """
    try:
        source = textwrap.dedent(inspect.getsource(kind.forward))  # type: ignore[attr-defined]
        nodes = list(ast.walk(ast.parse(source)))
    except (AttributeError, OSError, SyntaxError):
        return False
    asked = [node for node in nodes if isinstance(node, ast.Compare) and _is_question(node)]
    branches = [node for node in nodes if ast.dump(node) == ast.dump(_BRANCH)]
    return len(asked) == len(branches) == 1


def _is_question(node: ast.Compare) -> bool:
    """Whether the comparison has the residual in it."""
    return any(isinstance(name, ast.Name) and name.id == _NAME for name in ast.walk(node))
