"""``aten::_fused_dropout`` and ``aten::_masked_scale`` as the card has them.

PyTorch has both for CUDA only, and means other numbers: there ``p`` is the probability to keep, and
``scale`` the factor itself. Source: hpu_ops/backend/{fused_dropout_gen,_masked_scale_gen}.cpp and
the dropout of habana_kernels/kernels_register.cpp of HabanaAI/gaudi-pytorch-bridge.
"""

import torch

from .library import device_kernel

__all__ = ["fused_dropout", "masked_scale"]

_ATEN = torch.library.Library("aten", "IMPL")


def fused_dropout(
    input: torch.Tensor, p: float, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Set each element to zero with probability ``p``, and divide the others by ``1 - p``.

    Args:
        input: a float tensor on the device.
        p: in [0, 1].
        generator: of the device; its default without it.

    Returns:
        the result, like ``input``; and the mask, int8 in its shape, 1 where an element is kept.
    """
    mask = torch.empty_like(input, dtype=torch.int8).bernoulli_(1 - p, generator=generator)
    return input * mask * (1 / (1 - p) if p < 1 else 0.0), mask


@device_kernel("masked_scale(Tensor input, Tensor mask, float scale) -> Tensor")
def _masked_scale(input: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    one = torch.ones((), dtype=torch.float64)  # divides by zero as IEEE 754 says
    factor = (one / (one - one / scale)).item()
    return (input * mask * (factor if input.is_floating_point() else int(factor))).to(input.dtype)


def masked_scale(input: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    """The gradient of :func:`fused_dropout`: ``input * mask / (1 - 1 / scale)``.

    Args:
        input: the gradient of the result, of any type; an integer one rounds the factor to zero.
        mask: in the shape of ``input``.
        scale: ``1 / p`` of the dropout.
    """
    return torch.ops.gaudi_kernel.masked_scale(input, mask, scale)


_ATEN.impl("_fused_dropout", fused_dropout, "HPU")
_ATEN.impl("_masked_scale", masked_scale, "HPU")
