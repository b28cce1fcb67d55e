"""How many operations on the matrix engines does an operator take?

PyTorch's own formulas (torch.utils.flop_counter) where it has them, our own for the rest of ATen
and for the bridge's operators. Names are without namespace: the device runs ``aten::mm`` as
``gaudi_kernel::mm``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

__all__ = ["experts_touched", "matrix_operations", "vector_operations_inside"]

# Maximum, difference, exponential, sum, product and scale of each score of an attention.
_PER_SCORE = 6


def _inner(args: Sequence[Any], out: torch.Tensor) -> int:
    """[..., m, k] @ [k, n]: 2 m n k."""
    return 2 * out.numel() * args[0].shape[-1]


def _gemm(args: Sequence[Any], out: torch.Tensor) -> int:
    """fp8_gemm_v2(A, trans_A, B, ...): the inner dimension is A's last, or the one before."""
    return 2 * out.numel() * args[0].shape[-2 if args[1] else -1]


def _masked_gemm(args: Sequence[Any], out: torch.Tensor) -> int:
    """masked_batch_gemm(a, b, mask_a, mask_b, trans_a, trans_b)."""
    return _gemm((args[0], args[4]), out)


def _convolution(args: Sequence[Any], out: torch.Tensor) -> int:
    """Weight [out, in / groups, *kernel] meets every element of the result."""
    return 2 * out.numel() * prod(args[1].shape[1:])


def _scores(args: Sequence[Any]) -> int:
    """Of queries [..., q, d] and keys [..., k, d], which may share heads; masks save nothing."""
    return prod(args[0].shape[:-1]) * args[1].shape[-2]


def _attention(args: Sequence[Any], out: torch.Tensor) -> int:
    """Both products."""
    return 2 * _scores(args) * (args[0].shape[-1] + args[2].shape[-1])


def _attention_backward(args: Sequence[Any], out: torch.Tensor) -> int:
    """(grad, q, k, v, ...): each product of the forward has one for either of its inputs."""
    return 2 * _attention(args[1:4], out)


def _recomputed_attention_backward(args: Sequence[Any], out: torch.Tensor) -> int:
    """The same, and the scores once more."""
    return _attention_backward(args, out) + 2 * _scores(args[1:4]) * args[1].shape[-1]


def _local_share(op: torch._ops.OpOverload, args: Sequence[Any], experts: int) -> float:
    """Part of the routed rows that stay with the experts at hand, if routing is even."""
    names = [argument.name for argument in op._schema.arguments]
    given = dict(zip(names, args, strict=False)).get("total_experts", 0)
    return experts / given if given > experts else 1.0


def _routed(args: Sequence[Any]) -> int:
    """(token, expert) pairs: elements of the routing table, argument 1."""
    return args[1].numel()


def _elements(weight: torch.Tensor) -> int:
    """Of a matrix, also where 4-bit ones are packed into bytes or larger integers."""
    packed = 1 if weight.is_floating_point() else 2 * weight.element_size()
    return weight.numel() * packed


def _weights(op: torch._ops.OpOverload, args: Sequence[Any]) -> list[list[torch.Tensor]]:
    """Lists w1, w12 and so on of matrices, one for each expert; not their scales and biases."""
    return [
        list(value)
        for argument, value in zip(op._schema.arguments, args, strict=False)
        if argument.name.startswith("w")
        and not any(word in argument.name for word in ("bias", "scale", "zero"))
        and isinstance(value, list | tuple)
        and value
    ]


def _experts(op: torch._ops.OpOverload, args: Sequence[Any]) -> int:
    """Every routed row meets the matrices of one expert."""
    weights = _weights(op, args)
    if not weights:
        return 0
    elements = sum(_elements(w[0]) for w in weights)
    return int(2 * _routed(args) * elements * _local_share(op, args, len(weights[0])))


_EXPERTS = (
    "mixture_of_experts",
    "gated_experts",
    "swiglu_oai_experts",
    "fp8_experts",
    "packed_experts",
)

_OWN: dict[str, Callable[[Sequence[Any], torch.Tensor], int]] = {
    "linear": _inner,
    "matmul": _inner,
    "mv": lambda args, out: 2 * args[0].numel(),
    "dot": lambda args, out: 2 * args[0].numel(),
    "_scaled_dot_product_attention_math": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "scaled_dot_product_attention": _attention,
    "flash_attention": _attention,
    "sdpa_fwd": _attention,
    "sdpa_recomp_fwd": _attention,
    "fp8_sdpa_fwd": _attention,
    "fp8_sdpa_recomp_fwd": _attention,
    "sdpa_bwd": _attention_backward,
    "sdpa_recomp_bwd": _recomputed_attention_backward,
    "fp8_gemm": _gemm,
    "fp8_gemm_v2": _gemm,
    "masked_batch_gemm": _masked_gemm,
    "conv2d_fp8": _convolution,
}


def _narrow(tensors: Sequence[Any]) -> bool:
    """Whether the product's inputs have 8 bits."""
    first = next((t for t in tensors if isinstance(t, torch.Tensor)), None)
    return first is not None and first.element_size() == 1 and first.is_floating_point()


def matrix_operations(
    op: torch._ops.OpOverload, name: str, args: Sequence[Any], outputs: Sequence[torch.Tensor]
) -> tuple[int, bool] | None:
    """Operations, and whether they have FP8 inputs; None if the operator is no product."""
    if not outputs:
        return None
    if name.startswith(_EXPERTS):
        weights = _weights(op, args)
        return _experts(op, args), bool(weights) and _narrow(weights[0])
    if name in _OWN:
        return _OWN[name](args, outputs[0]), _narrow(args)
    if op.namespace == "hpu":
        return None
    packet = getattr(torch.ops.aten, name.removesuffix("_overrideable"), None)
    if packet is None or packet not in flop_registry:
        return None
    given = [
        value
        for argument, value in zip(op._schema.arguments, args, strict=False)
        if not argument.kwarg_only and not argument.is_out
    ]
    out = outputs[0] if len(outputs) == 1 else tuple(outputs)
    return int(flop_registry[packet](*given, out_val=out)), _narrow(args)


def vector_operations_inside(op: torch._ops.OpOverload, name: str, args: Sequence[Any]) -> int:
    """What a fused operator does on the vector engines beside its products."""
    if _OWN.get(name) is _attention:
        return _PER_SCORE * _scores(args)
    if _OWN.get(name) in (_attention_backward, _recomputed_attention_backward):
        return _PER_SCORE * _scores(args[1:4])
    if name.startswith(_EXPERTS):
        rows = _weights(op, args)
        return 3 * _routed(args) * rows[0][0].shape[0] if rows else 0
    return 0


def experts_touched(op: torch._ops.OpOverload, name: str, args: Sequence[Any]) -> float | None:
    """Part of the experts' weights that is read: at most one expert for each routed row."""
    if not name.startswith(_EXPERTS):
        return None
    weights = _weights(op, args)
    return min(1.0, _routed(args) / len(weights[0])) if weights else 1.0
