"""``hpu::rms_norm`` and ``hpu::rms_norm_fast``: root mean square normalisation.

Schema: scripts/hpu_op.yaml of HabanaAI/gaudi-pytorch-bridge. Kernel: csrc/bridge/rms_norm.cpp.
"""

import torch

from .library import operator

__all__ = ["rms_norm"]


def _fake(data_in: torch.Tensor, gamma: torch.Tensor, epsilon: float):
    inverse = data_in.new_empty((*data_in.shape[:-1], 1), dtype=torch.float32)
    return torch.empty_like(data_in), inverse


@operator("rms_norm_fast(Tensor data_in, Tensor gamma, float epsilon) -> (Tensor, Tensor)", _fake)
@operator("rms_norm(Tensor data_in, Tensor gamma, float epsilon) -> (Tensor, Tensor)", _fake)
def rms_norm(
    data_in: torch.Tensor, gamma: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalise the last dimension by its root mean square: ``x / sqrt(mean(x^2) + eps) * gamma``.

    Args:
        data_in: ``[..., hidden]``, float32, bfloat16 or float16.
        gamma: ``[hidden]``, any floating dtype.
        epsilon: added to the mean of squares.

    Returns:
        the result in the shape and dtype of ``data_in``, and the inverse root mean square
        ``[..., 1]`` in float32. The sum and the product are computed in float32, as on the card.
    """
    return torch.ops.gaudi_kernel.rms_norm(data_in, gamma, epsilon)
