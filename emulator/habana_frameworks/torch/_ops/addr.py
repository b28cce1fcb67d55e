"""``aten::addr`` as the card has it: one kernel, which rounds once at the end.

PyTorch's host kernel rounds the products in bfloat16 and float16, too. Source: scripts/hpu_op.yaml
(the kernel ``addr_fwd``) and the operator's tests in HabanaAI/gaudi-pytorch-bridge.
"""

import torch

from .library import device_kernel

__all__ = ["addr"]

_ATEN = torch.library.Library("aten", "IMPL")
_NARROW = (torch.bfloat16, torch.float16)


@device_kernel("addr(Tensor input, Tensor vec1, Tensor vec2, Scalar beta, Scalar alpha) -> Tensor")
def _addr(
    input: torch.Tensor, vec1: torch.Tensor, vec2: torch.Tensor, beta: float, alpha: float
) -> torch.Tensor:
    if input.dtype not in _NARROW:
        return torch.addr(input, vec1, vec2, beta=beta, alpha=alpha)
    wide = torch.addr(input.float(), vec1.float(), vec2.float(), beta=beta, alpha=alpha)
    return wide.to(input.dtype)


def addr(
    input: torch.Tensor,
    vec1: torch.Tensor,
    vec2: torch.Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> torch.Tensor:
    """``beta * input + alpha * outer(vec1, vec2)``; ``input`` ``[n, m]`` or what broadcasts to it.

    Args:
        input: not read with ``beta`` 0.
        vec1: ``[n]``.
        vec2: ``[m]``.
        beta: factor of ``input``.
        alpha: factor of the product.
    """
    return torch.ops.gaudi_kernel.addr(input, vec1, vec2, beta, alpha)


def _addr_out(
    input: torch.Tensor,
    vec1: torch.Tensor,
    vec2: torch.Tensor,
    *,
    out: torch.Tensor,
    **factors: float,
) -> torch.Tensor:
    value = addr(input, vec1, vec2, **factors)
    return out.resize_(value.shape).copy_(value)


_ATEN.impl("addr", addr, "HPU")
_ATEN.impl("addr.out", _addr_out, "HPU")
