"""How many operations and bytes does one operator take? From its schema and shapes alone.

Assumptions are on the page docs/cost.md of this distribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import Any

import torch

from .collective_cost import captured_call, link_bytes
from .matrix_cost import experts_touched, matrix_operations, vector_operations_inside

__all__ = ["Cost", "operator_cost"]


@dataclass(frozen=True)
class Cost:
    """Work of one operator, or of several.

    Attributes:
        matrix_flops: on the matrix engines, 16 or 32 bits; a multiplication with its addition
            counts as two.
        fp8_flops: the same with 8-bit inputs.
        vector_flops: on the vector engines.
        bytes: read and written in the card's memory, as if nothing stayed on the chip: an upper
            bound inside a graph.
        link_bytes: sent over the link to one other card, in a collective.
    """

    matrix_flops: int = 0
    fp8_flops: int = 0
    vector_flops: int = 0
    bytes: int = 0
    link_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def flops(self) -> int:
        """Operations on all engines."""
        return self.matrix_flops + self.fp8_flops + self.vector_flops


# Operations for each element of the result. What is not here takes one for each element of its
# largest tensor; a transcendental function counts as one.
_PER_RESULT = {
    "softmax": 5,  # maximum, difference, exponential, sum, product
    "_softmax": 5,
    "_log_softmax": 5,
    "custom_softmax": 5,
    "softmax_fp8": 5,
    "block_softmax": 6,  # with the bias
    "block_softmax_const_max": 6,
    "block_softmax_const_max_not_staged": 6,
    "softmax_fa2": 7,
    "scaled_masked_softmax": 7,
    "scaled_masked_triangular_softmax": 6,
    "scaled_triangular_softmax": 6,
    "scaled_triangular_softmax_retain": 6,
    "rms_norm": 4,  # square, sum, two products
    "rms_norm_fast": 4,
    "rms_norm_backward": 8,
    "rms_norm_fast_backward": 8,
    "native_layer_norm": 7,
    "rotary": 3,
    "rotary_pos_embedding": 3,
    "rotary_pos_embedding_backward": 3,
    "causal_conv": 8,  # a window of 4
    "causal_conv1d_fwd": 8,
    "causal_conv1d_update": 8,
    "selective_scan": 5,
    "mamba_pscan": 5,
    "cast_to_fp8": 2,  # scale, clamp
    "cast_to_fp8_v2": 2,
    "cast_to_fp8_just_in_time": 3,
    "cast_to_fp8_hybrid": 4,
    "convert_from_uint4": 3,  # unpack, zero point, scale
    "convert_from_int4": 3,
    "dequantize_nf4": 3,
    "quantize_nf4": 8,
}

# Read only the elements that they return, whatever the size of the table.
_GATHERS = {
    "index",
    "index_select",
    "embedding",
    "gather",
    "take",
    "plain_index",
    "unique_index",
    "kv_reorder",
}
# Write only the elements they are given; argument that holds them.
_SCATTERS = {
    "index_put_": 2,
    "_index_put_impl_": 2,
    "index_copy_": 3,
    "scatter_": 3,
    "scatter_add_": 3,
    "index_add_": 3,
    "scatter_reduce_": 3,
}
# Do not read what they overwrite.
_OVERWRITES = {"copy_", "fill_", "zero_", "normal_", "uniform_", "exponential_", "random_"}
# Make a tensor without writing it.
_EMPTY = {"empty", "empty_strided", "empty_like", "new_empty", "resize_", "set_"}


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors of an argument or result."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for element in value:
            yield from tensors_in(element)


def stored_bytes(tensor: torch.Tensor) -> int:
    """Of the distinct elements: an expanded dimension is stored once."""
    distinct = (n for n, s in zip(tensor.shape, tensor.stride(), strict=True) if s or n == 0)
    return prod(distinct) * tensor.element_size()


def _all(tensors: Sequence[torch.Tensor]) -> int:
    return sum(map(stored_bytes, tensors))


def _inputs(op: torch._ops.OpOverload, args: Sequence[Any]) -> list[torch.Tensor]:
    """Tensors that are read: not those of ``out=``."""
    given = zip(op._schema.arguments, args, strict=False)
    return [t for argument, value in given if not argument.is_out for t in tensors_in(value)]


def _moved(
    op: torch._ops.OpOverload, name: str, args: Sequence[Any], inputs: list, outputs: list
) -> int:
    """Bytes read and written."""
    if name in _EMPTY:
        return 0
    if name in _GATHERS and outputs:
        return 2 * _all(outputs) + _all(inputs[1:])
    if name in _SCATTERS and len(args) > _SCATTERS[name]:
        values = _all(list(tensors_in(args[_SCATTERS[name]])))
        return 2 * values + _all([t for t in inputs if t.dtype in (torch.int32, torch.int64)])
    if name in _OVERWRITES:
        return _all(inputs[1:]) + _all(outputs)
    touched = experts_touched(op, name, args)
    if touched is not None:
        weights = [
            t for value in args if isinstance(value, list | tuple) for t in tensors_in(value)
        ]
        others = [t for value in args for t in tensors_in(value) if not isinstance(value, list)]
        return int(_all(weights) * touched) + _all(others) + _all(outputs)
    return _all(inputs) + _all(outputs)


def collective_cost(kind: str, ranks: int, written: Sequence, read: Sequence) -> Cost:
    """Count one collective of ``ranks`` cards; see `link_bytes`."""
    sizes = _all(list(tensors_in(written))), _all(list(tensors_in(read)))
    return Cost(bytes=sum(sizes), link_bytes=link_bytes(kind, ranks, *sizes))


def has_formula(op: torch._ops.OpOverload) -> bool:
    """Whether the operator's cost is known: all of ATen, of the bridge and of its kernels."""
    return op.namespace in ("aten", "hpu", "gaudi_kernel", "prims")


def operator_cost(op: torch._ops.OpOverload, args: Sequence[Any], result: Any) -> Cost:
    """Count one call.

    Args:
        op: the overload, such as ``torch.ops.aten.mm.default``.
        args: all positional arguments; tensors may be on any device, meta included.
        result: what it returned.

    Raises:
        NotImplementedError: no formula for an operator of another library, which may hide a
            product.
    """
    returns = [r.alias_info for r in op._schema.returns]
    if returns and all(alias is not None and not alias.is_write for alias in returns):
        return Cost()  # a view
    if not has_formula(op):
        raise NotImplementedError(
            f"no cost formula for {op._schema.name}: add it to gaudi_emulator/matrix_cost.py"
        )
    name = op._schema.name.split("::")[1]
    inputs, outputs = _inputs(op, args), list(tensors_in(result))
    if name == "collective":
        return collective_cost(*captured_call(args[2]), args[0], args[1])
    moved = _moved(op, name, args, inputs, outputs)
    product = matrix_operations(op, name, args, outputs)
    if product is not None:
        flops, narrow = product
        vector = vector_operations_inside(op, name, args)
        return Cost(0 if narrow else flops, flops if narrow else 0, vector, moved)
    return Cost(vector_flops=_vector_flops(name, inputs, outputs), bytes=moved)


def _vector_flops(name: str, inputs: list, outputs: list) -> int:
    """Of an operator without a product."""
    if name in _PER_RESULT and outputs:
        return _PER_RESULT[name] * outputs[0].numel()
    if name in _EMPTY or name in _SCATTERS or name in ("copy_", "fill_", "zero_"):
        return 0
    counted = outputs if name in _GATHERS else [*inputs, *outputs]
    return max((t.numel() for t in counted), default=0)
