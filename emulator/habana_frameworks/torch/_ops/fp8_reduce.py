"""``hpu::sum_fp8``: the sum of an FP8 tensor.

Schema: scripts/hpu_op.yaml of HabanaAI/gaudi-pytorch-bridge.
"""

import torch

from .library import operator

__all__ = ["sum_fp8"]


def _fake(self, dim=None, keepdim=False, out_dtype=None):
    wide = torch.empty_like(self, dtype=torch.float32)
    return torch.sum(wide, dim, keepdim).to(out_dtype or self.dtype)


@operator(
    "sum_fp8(Tensor self, int[1]? dim=None, bool keepdim=False, ScalarType? out_dtype=None)"
    " -> Tensor",
    _fake,
)
def sum_fp8(
    self: torch.Tensor,
    dim: list[int] | None = None,
    keepdim: bool = False,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Sum over ``dim`` (None: all dimensions), taken in float32.

    Returns:
        ``out_dtype``, by default the type of ``self``; converted like ``torch.sum`` of it.
    """
    return torch.sum(self.to(torch.float32), dim, keepdim).to(out_dtype or self.dtype)
