"""``hpu::exp_fast_math``, ``sqrt_fast_math``, ``rsqrt_fast_math``, ``reciprocal_fast_math``.

On the card they are faster and less exact; here they are exact. Schemas: scripts/hpu_op.yaml of
HabanaAI/gaudi-pytorch-bridge.
"""

import torch

from .library import operator

__all__ = ["exp_fast_math", "reciprocal_fast_math", "rsqrt_fast_math", "sqrt_fast_math"]


def _fake(self: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(self)


@operator("exp_fast_math(Tensor self) -> Tensor", _fake)
def exp_fast_math(self: torch.Tensor) -> torch.Tensor:
    """Exponential of every element, in the input's dtype."""
    return torch.exp(self)


@operator("sqrt_fast_math(Tensor self) -> Tensor", _fake)
def sqrt_fast_math(self: torch.Tensor) -> torch.Tensor:
    """Square root of every element, in the input's dtype."""
    return torch.sqrt(self)


@operator("rsqrt_fast_math(Tensor self) -> Tensor", _fake)
def rsqrt_fast_math(self: torch.Tensor) -> torch.Tensor:
    """Inverse square root of every element, in the input's dtype."""
    return torch.rsqrt(self)


@operator("reciprocal_fast_math(Tensor self) -> Tensor", _fake)
def reciprocal_fast_math(self: torch.Tensor) -> torch.Tensor:
    """Reciprocal of every element, in the input's dtype."""
    return torch.reciprocal(self)
