"""``aten::_add_relu`` as the card has it: the product, the sum and the maximum each round.

PyTorch's host kernel rounds once at the end, which shows in bfloat16 and float16. Source: the
operator's test in HabanaAI/gaudi-pytorch-bridge.
"""

import torch

from .library import device_kernel

__all__ = ["add_relu"]

_ATEN = torch.library.Library("aten", "IMPL")


@device_kernel("add_relu(Tensor input, Tensor other, Scalar alpha) -> Tensor")
def add_relu(input: torch.Tensor, other: torch.Tensor, alpha: float) -> torch.Tensor:
    """``max(input + other * alpha, 0)``; ``other`` broadcasts."""
    return torch.relu(input + other * alpha)


@device_kernel("add_number_relu(Tensor input, Scalar number) -> Tensor")
def _add_number_relu(input: torch.Tensor, number: float) -> torch.Tensor:
    return torch.relu(input + number)


def _tensor(input: torch.Tensor, other: torch.Tensor, *, alpha: float = 1) -> torch.Tensor:
    return add_relu(input, other, alpha)


def _scalar(input: torch.Tensor, other: float, alpha: float = 1) -> torch.Tensor:
    return _add_number_relu(input, other * alpha)


_ATEN.impl("_add_relu.Tensor", _tensor, "HPU")
_ATEN.impl("_add_relu.Scalar", _scalar, "HPU")
_ATEN.impl("_add_relu_.Tensor", lambda a, b, *, alpha=1: a.copy_(_tensor(a, b, alpha=alpha)), "HPU")
_ATEN.impl("_add_relu_.Scalar", lambda a, b, alpha=1: a.copy_(_scalar(a, b, alpha)), "HPU")
