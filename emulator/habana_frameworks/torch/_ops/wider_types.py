"""Operators that take more types on the card than PyTorch's kernels for the host do.

``take`` has indices of 32 bits, ``uniform_`` fills integers. Source: the operators' tests in
HabanaAI/gaudi-pytorch-bridge.
"""

import torch

from .library import device_kernel

__all__: list[str] = []

_ATEN = torch.library.Library("aten", "IMPL")


@device_kernel("take(Tensor input, Tensor index) -> Tensor")
def _take(input: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return torch.take(input, index.long())


@device_kernel(
    "uniform_(Tensor(a!) self, float low, float high, Generator? generator) -> Tensor(a!)"
)
def _uniform(
    self: torch.Tensor, low: float, high: float, generator: torch.Generator | None
) -> torch.Tensor:
    if self.is_floating_point():
        return self.uniform_(low, high, generator=generator)
    drawn = torch.empty(self.shape, dtype=torch.float32).uniform_(low, high, generator=generator)
    return self.copy_(drawn)


def _fill(
    self: torch.Tensor,
    low: float = 0.0,
    high: float = 1.0,
    *,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """A number of ``[low, high)`` per element, rounded towards zero where ``self`` has integers."""
    return _uniform(self, low, high, generator)


_ATEN.impl("take", _take, "HPU")
_ATEN.impl("uniform_", _fill, "HPU")
