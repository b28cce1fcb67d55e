"""How many operations and bytes does one operator take? From its schema and shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch


@dataclass(frozen=True)
class Cost:
    """Work of one operator run on its own.

    Attributes:
        matrix_flops: on the matrix engines; a multiplication with its addition counts as two.
        vector_flops: on the vector engines, assumed one for each element of the largest tensor.
        bytes: read and written, as if nothing stayed on the chip: an upper bound inside a graph.
    """

    matrix_flops: int = 0
    vector_flops: int = 0
    bytes: int = 0


def _product(args: Sequence[Any], out: torch.Tensor) -> int:
    """[..., m, k] @ [..., k, n]: 2 m n k each."""
    return 2 * out.numel() * args[0].shape[-1]


def _biased_product(args: Sequence[Any], out: torch.Tensor) -> int:
    return 2 * out.numel() * args[1].shape[-1]


def _convolution(args: Sequence[Any], out: torch.Tensor) -> int:
    """Weight [out, in / groups, *kernel]; a transposed one meets each input element instead."""
    x, weight, transposed = args[0], args[1], args[6]
    return 2 * (x if transposed else out).numel() * prod(weight.shape[1:])


def _attention(args: Sequence[Any], out: torch.Tensor) -> int:
    """[..., q, d], [..., k, d], [..., k, e]: both products, without use of a causal mask."""
    query, key, value = args[:3]
    return 2 * prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


_MATRIX: dict[str, Callable[[Sequence[Any], torch.Tensor], int]] = {
    "aten::mm": _product,
    "aten::bmm": _product,
    "aten::linear": _product,
    "aten::addmm": _biased_product,
    "aten::baddbmm": _biased_product,
    "aten::convolution": _convolution,
    "aten::convolution_overrideable": _convolution,
    "aten::_scaled_dot_product_attention_math": _attention,
    "aten::_scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten::scaled_dot_product_attention": _attention,
}


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for element in value:
            yield from _tensors(element)


def _bytes(tensor: torch.Tensor) -> int:
    """Of the distinct elements: an expanded dimension is stored once."""
    distinct = (n for n, s in zip(tensor.shape, tensor.stride(), strict=True) if s or n == 0)
    return prod(distinct) * tensor.element_size()


def operator_cost(op: torch._ops.OpOverload, args: Sequence[Any], result: Any) -> Cost:
    """Count one call.

    Args:
        op: the overload, such as ``torch.ops.aten.mm.default``.
        args: all positional arguments; tensors may be on any device, meta included.
        result: what it returned.

    Raises:
        NotImplementedError: no formula for an operator outside of aten, which may hide a product.
    """
    name = op._schema.name
    returns = [r.alias_info for r in op._schema.returns]
    if returns and all(alias is not None and not alias.is_write for alias in returns):
        return Cost()  # a view
    outputs = list(_tensors(result))
    moved = sum(map(_bytes, [*_tensors(args), *outputs]))
    if name in _MATRIX:
        return Cost(matrix_flops=_MATRIX[name](args, outputs[0]), bytes=moved)
    if not name.startswith("aten::"):
        raise NotImplementedError(
            f"no cost formula for {name}: add it to gaudi_emulator/operator_cost.py"
        )
    elements = max((t.numel() for t in [*_tensors(args), *outputs]), default=0)
    return Cost(vector_flops=elements, bytes=moved)
