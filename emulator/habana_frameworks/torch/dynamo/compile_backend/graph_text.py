"""A traced graph as a text that is equal for equal graphs, in this process and in later ones."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

__all__ = ["describe"]


def describe(module: fx.GraphModule, inputs: Sequence[Any]) -> str:
    """Operators, constants and data flow of a graph, and what its inputs look like.

    Names of inputs and of intermediate results say where they come from in the program, such as the
    layer's number, so that they do not count: a node is named by its place. Neither do the values
    of tensors on a device, which a recipe takes as inputs, and which of several cards it was.

    Args:
        module: a graph that Dynamo or AOTAutograd traced.
        inputs: tensors (by shape, strides and dtype) and sizes.
    """
    lines = [f"input {_looks(value)}" for value in inputs]
    places: dict[fx.Node, str] = {}
    for node in module.graph.nodes:
        places[node] = f"%{len(places)}"
        if node.op == "placeholder":
            lines.append("placeholder")
            continue
        arguments = fx.map_arg((node.args, node.kwargs), lambda n: _Place(places[n]))
        lines.append(f"{node.op} {_target(module, node)} {_arguments(arguments)}")
    return "\n".join(lines)


class _Place(str):
    """Stands for a node among arguments; prints without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _arguments(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return _value(value)
    if isinstance(value, torch.device):
        return value.type  # a recipe runs on any card of its kind
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_arguments(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(_arguments(item) for item in value) + ")"
    return repr(value)


def _target(module: fx.GraphModule, node: fx.Node) -> str:
    target: Any = node.target
    if node.op == "call_function":
        return _function(target)
    if node.op == "get_attr":
        return _value(_attribute(module, target))
    if node.op == "call_module":
        return repr(module.get_submodule(target))
    return str(target)


def _function(target: Callable[..., Any]) -> str:
    if isinstance(target, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return str(target)
    name = getattr(target, "__qualname__", None) or getattr(target, "__name__", None)
    return f"{getattr(target, '__module__', '')}.{name or type(target).__qualname__}"


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


def _looks(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return repr(value)
    return f"{value.dtype} {tuple(value.shape)} {value.stride()} {value.device.type}"


def _value(value: Any) -> str:
    if isinstance(value, fx.GraphModule):
        return f"[{describe(value, ())}]"
    looks = _looks(value)
    if (
        not isinstance(value, torch.Tensor)
        or isinstance(value, FakeTensor)
        or value.device.type != "cpu"
    ):
        return looks
    # A tensor of the host inside a graph is a constant of the recipe.
    with unset_fake_temporarily():  # AOTAutograd compiles where only fake tensors are allowed
        data = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{looks} {hashlib.sha256(data).hexdigest()}"
