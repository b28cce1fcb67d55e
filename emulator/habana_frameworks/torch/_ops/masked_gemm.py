"""``hpu::masked_batch_gemm``: a batched product plus the product of two masks.

Schema: scripts/hpu_op.yaml of HabanaAI/gaudi-pytorch-bridge; mathematics: its tests.
"""

import torch

from .library import operator

__all__ = ["masked_batch_gemm"]


def _fake(a, b, mask_a, mask_b, trans_a, trans_b):
    left, right = a.mT if trans_a else a, b.mT if trans_b else b
    return a.new_empty([*left.shape[:-1], right.shape[-1]])


@operator(
    "masked_batch_gemm(Tensor a, Tensor b, Tensor mask_a, Tensor mask_b, bool trans_a,"
    " bool trans_b) -> Tensor",
    _fake,
)
def masked_batch_gemm(
    a: torch.Tensor,
    b: torch.Tensor,
    mask_a: torch.Tensor,
    mask_b: torch.Tensor,
    trans_a: bool,
    trans_b: bool,
) -> torch.Tensor:
    """``op(a) @ op(b) + op(mask_a) @ op(mask_b)``, where ``op`` transposes the last two dimensions.

    Args:
        a, b: ``[batch, heads, m, k]`` and ``[batch, heads, k, n]`` after ``op``.
        mask_a, mask_b: the same with one head; they broadcast.

    Returns:
        ``[batch, heads, m, n]`` in the dtype of ``a``; sums are in float32.
    """

    def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        left, right = left.to(torch.float32), right.to(torch.float32)
        return torch.matmul(left.mT if trans_a else left, right.mT if trans_b else right)

    return (product(a, b) + product(mask_a, mask_b)).to(a.dtype)
