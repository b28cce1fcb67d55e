"""How do tensors travel, when the transport knows fewer dtypes than the card?

Moving data needs no dtype: tensors of a dtype that gloo lacks travel as bytes. Reducing needs
arithmetic: such tensors are reduced in a wider dtype and rounded once at the end.
"""

from collections.abc import Sequence

import torch
from torch.distributed import ReduceOp

__all__ = ["as_bytes", "concatenated", "movable", "reducible"]

_GLOO_DTYPES = frozenset(
    {
        torch.uint8,
        torch.int8,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    }
)

_WIDER = {
    torch.bool: torch.int32,
    torch.int16: torch.int32,
    torch.float8_e4m3fn: torch.float32,
    torch.float8_e5m2: torch.float32,
}


def _require_contiguous(tensor: torch.Tensor) -> None:
    if not tensor.is_contiguous():
        raise ValueError(
            f"hccl: a tensor of shape {tuple(tensor.shape)} and strides {tensor.stride()} is not "
            "contiguous; call .contiguous() first"
        )


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A view as uint8: ``[rows, bytes per row]``, rows being the first dimension."""
    _require_contiguous(tensor)
    if tensor.dim() < 2:
        tensor = tensor.reshape(-1, 1)
    return tensor.flatten(1).view(torch.uint8)


def movable(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or its bytes when gloo does not know the dtype."""
    _require_contiguous(tensor)
    return tensor if tensor.dtype in _GLOO_DTYPES else as_bytes(tensor)


def reducible(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or a copy in a dtype that gloo can reduce."""
    _require_contiguous(tensor)
    if tensor.dtype in _GLOO_DTYPES:
        return tensor
    if tensor.dtype not in _WIDER:
        raise ValueError(f"hccl: tensors of dtype {tensor.dtype} cannot be reduced")
    return tensor.to(_WIDER[tensor.dtype])


def concatenated(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """One flat buffer of bytes with the tensors one behind the other."""
    return torch.cat([as_bytes(tensor).flatten() for tensor in tensors])


def average_as_sum(op: ReduceOp.RedOpType) -> tuple[ReduceOp.RedOpType, bool]:
    """gloo has no average: the sum, and whether to divide by the group's size afterwards."""
    if op == ReduceOp.AVG:
        return ReduceOp.SUM, True
    return op, False
