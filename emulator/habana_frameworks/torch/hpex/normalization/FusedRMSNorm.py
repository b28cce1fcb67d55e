"""``FusedRMSNorm``: RMS normalisation as one operator.

Signature: python_packages/habana_frameworks/torch/hpex/normalization of
HabanaAI/gaudi-pytorch-bridge.
"""

import enum

import torch

__all__ = ["FusedRMSNorm", "RmsNormBwdMode"]


class RmsNormBwdMode(enum.Enum):
    """Which kernel of the card computes the gradient."""

    DEFAULT = 0
    STATIC_CASE_WIDTH_PARTITIONING = 1


class FusedRMSNorm(torch.autograd.Function):
    """``FusedRMSNorm.apply(x, gamma, eps)``."""

    @staticmethod
    def forward(ctx, data_in, gamma, eps, use_stages=True, bwd_mode=0, fast_math=False):
        """Normalise the last dimension of ``data_in`` ``[..., hidden]`` and scale by ``gamma``.

        Args:
            data_in: float32, bfloat16 or float16.
            gamma: ``[hidden]``.
            eps: added to the mean of squares.
            use_stages, bwd_mode: choose the kernel of the gradient; the numbers are the same.
            fast_math: use ``rms_norm_fast``.

        Returns:
            a tensor like ``data_in``.
        """
        norm = torch.ops.hpu.rms_norm_fast if fast_math else torch.ops.hpu.rms_norm
        out, inverse_rms = norm(data_in, gamma, eps)
        ctx.save_for_backward(data_in, gamma, inverse_rms)
        ctx.choices = use_stages, bwd_mode
        ctx.fast_math = fast_math
        return out

    @staticmethod
    def backward(ctx, grad):
        """Gradients of ``data_in`` and ``gamma``."""
        backward = (
            torch.ops.hpu.rms_norm_fast_backward
            if ctx.fast_math
            else torch.ops.hpu.rms_norm_backward
        )
        return (*backward(grad, *ctx.saved_tensors, *ctx.choices), None, None, None, None)
