"""``FusedRMSNorm``: RMS normalisation as one operator.

Signature: python_packages/habana_frameworks/torch/hpex/normalization of
HabanaAI/gaudi-pytorch-bridge.
"""

import torch

__all__ = ["FusedRMSNorm"]


class FusedRMSNorm(torch.autograd.Function):
    """``FusedRMSNorm.apply(x, gamma, eps)``: forward only."""

    @staticmethod
    def forward(ctx, data_in, gamma, eps, use_stages=True, bwd_mode=0, fast_math=False):
        """Normalise the last dimension of ``data_in`` ``[..., hidden]`` and scale by ``gamma``.

        Args:
            data_in: float32, bfloat16 or float16.
            gamma: ``[hidden]``.
            eps: added to the mean of squares.
            use_stages, bwd_mode: choose a backward kernel; no meaning without backward.
            fast_math: use ``rms_norm_fast``.

        Returns:
            a tensor like ``data_in``.
        """
        norm = torch.ops.hpu.rms_norm_fast if fast_math else torch.ops.hpu.rms_norm
        return norm(data_in, gamma, eps)[0]

    @staticmethod
    def backward(ctx, *grads):
        """Refuse: training is not part of the emulated bridge."""
        raise NotImplementedError(
            "FusedRMSNorm: the emulated bridge provides no backward; run under torch.no_grad() or "
            "use torch.nn.functional.rms_norm for training"
        )
