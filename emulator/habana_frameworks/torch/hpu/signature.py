"""What makes two calls of a graphed module the same graph?

Tensors count by shape, strides, dtype and device, everything else by value, as in
python_packages/habana_frameworks/torch/hpu/graphs.py of HabanaAI/gaudi-pytorch-bridge.
"""

import dataclasses
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import torch

__all__ = ["signature_of", "tensors_in"]


def _members(value: Any) -> dict[str, Any] | None:
    """The attributes of a dataclass or a plain object that carries its state in ``__dict__``."""
    if isinstance(value, type) or callable(value):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return getattr(value, "__dict__", None) or None


def signature_of(value: Any) -> Hashable:
    """A key that is equal for calls which may share a graph.

    Raises:
        TypeError: a value is neither a tensor, a container, an object with attributes, nor
            hashable, so that it cannot be told whether a graph fits.
    """
    if isinstance(value, torch.Tensor):
        return ("tensor", tuple(value.shape), value.stride(), value.dtype, value.device)
    if isinstance(value, list | tuple):
        return (type(value).__name__, *(signature_of(item) for item in value))
    if isinstance(value, Mapping):
        return ("mapping", *((key, signature_of(item)) for key, item in value.items()))
    members = _members(value)
    if members is not None:
        return (type(value), signature_of(members))
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"an HPU graph cannot be chosen by a value of type {type(value).__name__}: it is "
            "neither a tensor, a container nor hashable; pass it before wrapping the module"
        ) from None
    return value


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors inside ``value``, in the order that :func:`signature_of` visits them."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    else:
        members = _members(value)
        if members is not None:
            yield from tensors_in(members)
