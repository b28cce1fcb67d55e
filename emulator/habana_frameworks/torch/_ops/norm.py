"""``hpu::rms_norm``, ``hpu::rms_norm_fast`` and their gradients.

Schemas: scripts/hpu_op.yaml of HabanaAI/gaudi-pytorch-bridge. Kernel: csrc/bridge/rms_norm.cpp.
"""

import torch

from .library import operator

__all__ = ["rms_norm", "rms_norm_backward"]


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


def _fake_backward(grad_in, data_in, gamma, inverse_rms, use_stages, bwd_mode):
    return torch.empty_like(data_in), torch.empty_like(gamma)


_BACKWARD = (
    "(Tensor grad_in, Tensor data_in, Tensor gamma, Tensor inverse_rms, bool use_stages,"
    " int bwd_mode) -> (Tensor, Tensor)"
)


@operator(f"rms_norm_fast_backward{_BACKWARD}", _fake_backward)
@operator(f"rms_norm_backward{_BACKWARD}", _fake_backward)
def rms_norm_backward(
    grad_in: torch.Tensor,
    data_in: torch.Tensor,
    gamma: torch.Tensor,
    inverse_rms: torch.Tensor,
    use_stages: bool,
    bwd_mode: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of ``x * r * gamma`` with ``r = 1 / sqrt(mean(x^2) + eps)``.

    With ``n = x * r`` and ``g = grad * gamma``, ``dx = r * (g - n * mean(g * n))`` and
    ``dgamma`` is the sum of ``grad * n`` over all rows.

    Args:
        grad_in, data_in: ``[..., hidden]``.
        gamma: ``[hidden]``.
        inverse_rms: ``[..., 1]``, the second result of ``rms_norm``.
        use_stages, bwd_mode: choose between kernels of the card; the numbers are the same.

    Returns:
        the gradients of ``data_in`` and of ``gamma``, in their dtypes, computed in float32.
    """
    grad = grad_in.to(torch.float32)
    normal = data_in.to(torch.float32) * inverse_rms
    scaled = grad * gamma
    data_grad = (scaled - normal * (scaled * normal).mean(dim=-1, keepdim=True)) * inverse_rms
    gamma_grad = (grad * normal).reshape(-1, gamma.shape[0]).sum(dim=0)
    return data_grad.to(data_in.dtype), gamma_grad.to(gamma.dtype)
