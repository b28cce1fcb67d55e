"""``quantized_decomposed`` as the card has it: one kernel per operator, with its rounding.

PyTorch composes them, multiplies with the inverse of the scale in float32, and rounds to an integer
also where the result is FP8. The card divides by the scale of a tensor, multiplies with the inverse
scale of a channel in the type of the input, and rounds only for integers. Channels of FP8 can be
turned back. Source: the operators' test in HabanaAI/gaudi-pytorch-bridge.
"""

import torch

from .library import device_kernel

__all__: list[str] = []

_DECOMPOSED = torch.library.Library("quantized_decomposed", "IMPL")


def _along(axis: int, dim: int) -> list[int]:
    return [-1 if at == axis % dim else 1 for at in range(dim)]


def _limited(
    scaled: torch.Tensor, zero_point: object, low: object, high: object, dtype: torch.dtype
) -> torch.Tensor:
    rounded = scaled if dtype.is_floating_point else scaled.round()
    return torch.clamp(rounded + zero_point, low, high).to(dtype)


@device_kernel(
    "quantize_per_tensor(Tensor input, Scalar scale, Scalar zero_point, Scalar low, Scalar high, "
    "ScalarType dtype) -> Tensor"
)
def _by_numbers(
    input: torch.Tensor, scale: float, zero_point: int, low: int, high: int, dtype: torch.dtype
) -> torch.Tensor:
    return _limited(input / scale, zero_point, low, high, dtype)


@device_kernel(
    "quantize_per_tensor_values(Tensor input, Tensor scale, Tensor zero_point, Tensor low, "
    "Tensor high, ScalarType dtype) -> Tensor"
)
def _by_values(
    input: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    dtype: torch.dtype,
) -> torch.Tensor:
    return _limited(input / scale, zero_point, low, high, dtype)


@device_kernel(
    "quantize_per_tensor_scale(Tensor input, Tensor scale, Tensor zero_point, Scalar low, "
    "Scalar high, ScalarType dtype) -> Tensor"
)
def _by_scale(
    input: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    low: int,
    high: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    return _limited(input / scale, zero_point, low, high, dtype)


@device_kernel(
    "quantize_per_channel(Tensor input, Tensor scales, Tensor zero_points, int axis, Scalar low, "
    "Scalar high, ScalarType dtype) -> Tensor"
)
def _per_channel(
    input: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor,
    axis: int,
    low: int,
    high: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    shape = _along(axis, input.dim())
    inverse = (1.0 / scales.to(input.dtype)).view(shape)
    return _limited(input * inverse, zero_points.to(input.dtype).view(shape), low, high, dtype)


@device_kernel(
    "dequantize_per_channel(Tensor input, Tensor scales, Tensor? zero_points, int axis, "
    "ScalarType dtype) -> Tensor"
)
def _from_channels(
    input: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor | None,
    axis: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    shape = _along(axis, input.dim())
    numbers = input.to(dtype)
    if zero_points is not None:
        numbers = numbers - zero_points.view(shape)
    return (numbers * scales.view(shape)).to(dtype)


def _dequantize_per_channel(
    input: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor | None,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    *,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    return _from_channels(input, scales, zero_points, axis, out_dtype or torch.float32)


_DECOMPOSED.impl("quantize_per_tensor", _by_numbers, "HPU")
_DECOMPOSED.impl("quantize_per_tensor.tensor", _by_scale, "HPU")
_DECOMPOSED.impl("quantize_per_tensor.tensor2", _by_values, "HPU")
_DECOMPOSED.impl("quantize_per_channel", _per_channel, "HPU")
_DECOMPOSED.impl("dequantize_per_channel", _dequantize_per_channel, "HPU")
