"""What a compiled graph consists of, for who asks: loggers of the backend and graph analyzers.

Intel's bridge logs, per operator, whether it leaves the recipe, and each recipe as PyTorch's JIT
prints graphs; its tests and its users' scripts read operators out of these texts. Form of the
lines: tests/pytest_working/test_utils.py of HabanaAI/gaudi-pytorch-bridge.
"""

from collections.abc import Iterator

import torch
from torch import fx

from . import config, passes, shared_layer

__all__ = ["analyzers", "is_fallback", "note", "operators", "wanted"]

analyzers: list = []
"""Objects whose ``count_ops(module)`` is called with every graph."""

# A card draws random numbers inside a recipe from a seed that is an input of the recipe.
_SEEDED = {
    "aten::bernoulli",
    "aten::multinomial",
    "aten::native_dropout",
    "aten::poisson",
    "aten::rand",
    "aten::randint",
    "aten::randn",
    "aten::randperm",
    "aten::uniform",
}
_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def wanted() -> bool:
    """Whether anybody looks at graphs; they are lowered to ATen's operators then."""
    loggers = (passes.logger, shared_layer.logger)
    return bool(analyzers) or any(logger.store_data for logger in loggers)


def is_fallback(node: fx.Node) -> bool:
    """Whether this operator runs outside the recipe.

    What depends on values (``item``, ``nonzero``) must; others where the program asks for it.
    """
    told = node.kwargs.get("output_size") is not None  # repeat_interleave, by a caller that knows
    if not told and not _VALUES.isdisjoint(getattr(node.target, "tags", ())):
        return True
    name = _schema_name(node).partition("::")[2]
    return config.use_eager_fallback and name in shared_layer.hpu_fallback_op_list


def operators(module: fx.GraphModule) -> Iterator[fx.Node]:
    """The nodes of a graph, and of graphs inside it, that call an operator."""
    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            for node in part.graph.nodes:
                if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
                    yield node


def note(module: fx.GraphModule) -> None:
    """Tell analyzers and loggers about one graph that becomes a recipe."""
    for analyzer in list(analyzers):
        analyzer.count_ops(module)
    nodes = list(operators(module))
    for node in nodes:
        shared_layer.logger.debug(f"Node: {node.name} requires fallback: {is_fallback(node)}")
    lines = [
        f"  %{node.name} = {_card_name(node)}({', '.join(f'%{i}' for i in node.all_input_nodes)})"
        for node in nodes
        if not is_fallback(node)
    ]
    passes.logger.debug("\n".join(["####PyTorch-generated JIT IR graph:", *lines]))


def _schema_name(node: fx.Node) -> str:
    target = node.target
    return target._schema.name if isinstance(target, torch._ops.OpOverload) else str(target)


def _card_name(node: fx.Node) -> str:
    name = _schema_name(node)
    drawn = name.removesuffix("_like")  # the shape of a tensor is an input of the same operator
    return f"hpu::habana_{drawn.removeprefix('aten::')}" if drawn in _SEEDED else name
