"""``quantized_decomposed`` on the device, against float64 maths."""

from __future__ import annotations

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # defines the operators

OPS = torch.ops.quantized_decomposed
TYPES = [torch.int8, torch.int32, torch.float8_e4m3fn, torch.float8_e5m2]


def expected(scaled: torch.Tensor, zero: object, low: int, high: int, dtype: torch.dtype):
    """From numbers that were divided by their scale already."""
    numbers = scaled.double()
    numbers = numbers if dtype.is_floating_point else numbers.round()
    return (numbers + zero).clamp(low, high).float().to(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("overload", ["numbers", "scale", "all"])
def test_a_tensor_is_divided_by_its_scale(dtype: torch.dtype, overload: str) -> None:
    """5 is no power of two: a product with 0.2 would round to other integers at halves."""
    values = torch.arange(24 * 48).view(24, 48) * 0.5 + 2.5
    arguments: list[object] = [5.0, 10, 20, 125]
    count = {"numbers": 0, "scale": 2, "all": 4}[overload]
    for at in range(count):
        arguments[at] = torch.tensor(arguments[at]).to("hpu")
    found = OPS.quantize_per_tensor(values.to("hpu"), *arguments, dtype)
    assert found.dtype is dtype
    wanted = expected(values / 5.0, 10, 20, 125, dtype)
    assert torch.equal(found.cpu().float(), wanted.float())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_channels_there_and_back(dtype: torch.dtype, axis: int) -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(6, 5, 7, generator=generator) * 100
    scales = torch.rand(values.shape[axis], generator=generator) * 4 + 1
    zeros = torch.randint(0, 5, scales.shape, generator=generator)
    packed = OPS.quantize_per_channel(
        values.to("hpu"), scales.to("hpu"), zeros.to("hpu"), axis, 0, 100, dtype
    )
    shape = [-1 if at == axis % 3 else 1 for at in range(3)]
    scale, zero = scales.view(shape), zeros.view(shape)
    wanted = expected(values * (1.0 / scale), zero, 0, 100, dtype)
    assert torch.equal(packed.cpu().float(), wanted.float())
    again = OPS.dequantize_per_channel(
        packed, scales.to("hpu"), zeros.to("hpu"), axis, 0, 100, dtype, out_dtype=torch.float32
    )
    back = (wanted.double() - zero.double()) * scale.double()
    torch.testing.assert_close(again.cpu().double(), back, rtol=1e-5, atol=1e-6)
