"""``hpu::instance_norm``, its gradient, and ``aten::instance_norm`` on the device by means of it.

PyTorch makes a batch norm of an instance norm. Source: the decompositions and shape functions in
python_packages/habana_frameworks/torch/dynamo of HabanaAI/gaudi-pytorch-bridge.
"""

from typing import Any

import torch
from torch._C import DispatchKey

from .library import device_kernel, operator

__all__ = ["instance_norm", "instance_norm_backward"]

_ATEN = torch.library.Library("aten", "IMPL")
_WHOLE = torch.ops.aten.instance_norm.default
_COMPOSITE = DispatchKey.CompositeImplicitAutograd

_NORM = "(Tensor input, Tensor? weight, Tensor? bias, float eps) -> (Tensor, Tensor, Tensor)"
_GRADIENT = (
    "(Tensor input, Tensor grad_in, Tensor mean, Tensor istd, Tensor? gamma)"
    " -> (Tensor, Tensor, Tensor)"
)


def _per_channel(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``[channels]`` or ``[batch, channels]`` in the rank of ``like``, in float32."""
    return value.float().reshape(-1, like.shape[1], *[1] * (like.dim() - 2))


@device_kernel(f"instance_norm{_NORM}")
def _norm(input, weight, bias, eps):
    variance, mean = torch.var_mean(input.float().flatten(2), dim=2, correction=0)
    istd = (variance + eps).rsqrt()
    result = (input.float() - _per_channel(mean, input)) * _per_channel(istd, input)
    if weight is not None:
        result = result * _per_channel(weight, input)
    if bias is not None:
        result = result + _per_channel(bias, input)
    return result.to(input.dtype), mean, istd


@device_kernel(f"instance_norm_backward{_GRADIENT}")
def _gradient(input, grad_in, mean, istd, gamma):
    scale = _per_channel(istd, input)
    normal = (input.float() - _per_channel(mean, input)) * scale
    grad = grad_in.float()
    others = [0, *range(2, input.dim())]
    of_bias, of_weight = grad.sum(others), (grad * normal).sum(others)
    if gamma is not None:
        grad = grad * _per_channel(gamma, input)
    inner = others[1:]
    centred = grad - grad.mean(inner, keepdim=True)
    result = scale * (centred - normal * (grad * normal).mean(inner, keepdim=True))
    return result.to(input.dtype), of_bias, of_weight


def _fake(input, weight, bias, eps):
    facts = [input.new_empty(input.shape[:2], dtype=torch.float32) for _ in range(2)]
    return torch.empty_like(input, memory_format=torch.contiguous_format), *facts


@operator(f"instance_norm{_NORM}", _fake)
def instance_norm(
    input: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalise each channel of each sample to mean 0 and variance 1, then scale and shift.

    Args:
        input: ``[batch, channels, ...]``, float32, bfloat16 or float16.
        weight, bias: ``[channels]``, or None for 1 and 0.
        eps: added to the variance.

    Returns:
        the result like ``input``; mean and inverse standard deviation, ``[batch, channels]`` in
        float32, in which everything is computed.
    """
    return torch.ops.gaudi_kernel.instance_norm(input.contiguous(), weight, bias, eps)


def _fake_backward(input, grad_in, mean, istd, gamma):
    sums = [input.new_empty(input.shape[1], dtype=torch.float32) for _ in range(2)]
    return torch.empty_like(input, memory_format=torch.contiguous_format), *sums


@operator(f"instance_norm_backward{_GRADIENT}", _fake_backward)
def instance_norm_backward(
    input: torch.Tensor,
    grad_in: torch.Tensor,
    mean: torch.Tensor,
    istd: torch.Tensor,
    gamma: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of :func:`instance_norm`.

    Args:
        input, grad_in: ``[batch, channels, ...]``.
        mean, istd: as the norm returned them.
        gamma: its ``weight``.

    Returns:
        the gradients of the input, like it; of the bias and of the weight, ``[channels]`` float32.
    """
    return torch.ops.gaudi_kernel.instance_norm_backward(
        input.contiguous(), grad_in.contiguous(), mean, istd, gamma
    )


def _in_parts(input, weight, bias, eps):
    """PyTorch's own form of the norm, which can be differentiated twice."""
    return _WHOLE._op_dk(_COMPOSITE, input, weight, bias, None, None, True, 0.0, eps, False)


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors, *output[1:])


def _gradients(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple:
    input, weight, bias, mean, istd = ctx.saved_tensors
    if torch.is_grad_enabled():  # the gradients will be differentiated
        wanted = [t for t in (input, weight, bias) if t is not None and t.requires_grad]
        result = _in_parts(input, weight, bias, ctx.eps)
        found = iter(torch.autograd.grad(result, wanted, grad, create_graph=True))
        return *(
            next(found) if any(t is w for w in wanted) else None for t in (input, weight, bias)
        ), None
    of_input, of_bias, of_weight = torch.ops.hpu.instance_norm_backward(
        input, grad, mean, istd, weight
    )
    of_weight = None if weight is None else of_weight.to(weight.dtype)
    of_bias = None if bias is None else of_bias.to(bias.dtype)
    return of_input, of_weight, of_bias, None


torch.library.register_autograd("hpu::instance_norm", _gradients, setup_context=_save)


def _whole(input, weight, bias, mean, variance, use_input_stats, momentum, eps, cudnn_enabled):
    """``aten::instance_norm``; with running statistics PyTorch's own form of it."""
    if input.device.type == "hpu" and use_input_stats and mean is None and variance is None:
        return torch.ops.hpu.instance_norm(input, weight, bias, eps)[0]
    return _WHOLE._op_dk(
        _COMPOSITE,
        input,
        weight,
        bias,
        mean,
        variance,
        use_input_stats,
        momentum,
        eps,
        cudnn_enabled,
    )


_ATEN.impl("instance_norm", _whole, "HPU")
_ATEN.impl("instance_norm", _whole, "AutogradHPU")
_WHOLE.py_impl(_COMPOSITE)(_whole)  # traced in inference mode, it passes no other key
