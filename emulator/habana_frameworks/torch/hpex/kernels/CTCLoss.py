"""``CTCLoss``: connectionist temporal classification as one operator.

Signature: python_packages/habana_frameworks/torch/hpex/kernels/CTCLoss.py of
HabanaAI/gaudi-pytorch-bridge.
"""

import torch

__all__ = ["CTCLoss"]

_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


class CTCLoss(torch.autograd.Function):
    """``CTCLoss.apply(log_probs, targets, input_lengths, target_lengths, ...)``."""

    @staticmethod
    def forward(
        ctx,
        log_probs,
        targets,
        input_lengths,
        target_lengths,
        blank=0,
        reduction="mean",
        zero_infinity=False,
    ):
        """The loss of ``torch.nn.CTCLoss``; arguments as of ``torch.ops.hpu.ctc_loss_custom``.

        Raises:
            ValueError: ``reduction`` is not none, mean or sum.
        """
        if reduction not in _REDUCTIONS:
            raise ValueError(
                f"CTCLoss: reduction '{reduction}' is unknown; use {', '.join(_REDUCTIONS)}"
            )
        rules = blank, _REDUCTIONS[reduction], zero_infinity
        inputs = log_probs, targets, input_lengths, target_lengths
        loss, alpha = torch.ops.hpu.ctc_loss_custom(*inputs, *rules)
        ctx.save_for_backward(*inputs, loss, alpha)
        ctx.rules = rules
        return loss

    @staticmethod
    def backward(ctx, grad):
        """Gradient of ``log_probs``."""
        gradient = torch.ops.hpu.ctc_loss_custom_backward(grad, *ctx.saved_tensors, *ctx.rules)
        return gradient, None, None, None, None, None, None
