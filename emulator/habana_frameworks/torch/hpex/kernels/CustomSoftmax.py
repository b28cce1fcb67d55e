"""``CustomSoftmax``: softmax over the last dimension with a choice of kernel."""

import torch

__all__ = ["CustomSoftmax"]


class CustomSoftmax(torch.autograd.Function):
    """``CustomSoftmax.apply(input, flavor)``: forward only; every flavor is exact here."""

    @staticmethod
    def forward(ctx, input, flavor):
        """Softmax of ``input`` over its last dimension; ``flavor`` is an int."""
        return torch.ops.hpu.custom_softmax(input, flavor)

    @staticmethod
    def backward(ctx, *grads):
        """Refuse: training is not part of the emulated bridge."""
        raise NotImplementedError(
            "CustomSoftmax: the emulated bridge provides no backward; use torch.softmax"
        )
