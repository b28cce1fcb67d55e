"""``torch._scaled_mm`` against the same product in float64."""

import pytest
import torch

E4M3_MAX = 240.0 if torch.hpu.get_device_name() == "GAUDI2" else 448.0
LARGEST = {torch.float8_e4m3fn: E4M3_MAX, torch.float8_e5m2: 57344.0}
HALF_STEP = {torch.float8_e4m3fn: 2**-4, torch.float8_e5m2: 2**-3, torch.bfloat16: 2**-8}


@pytest.mark.parametrize("scale_result", [None, 0.05, 0.5])
@pytest.mark.parametrize("out", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_scaled_products(dtype, out, scale_result):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(32, 48, generator=g).to(dtype)
    y = torch.randn(48, 16, generator=g).to(dtype)
    scales = [torch.tensor(2.5), torch.tensor(3.0)]
    result = None if scale_result is None else torch.tensor(scale_result)
    if out == torch.bfloat16:
        result = None
    exact = x.double() @ y.double() * 7.5 * (1.0 if result is None else scale_result)
    exact = exact.clamp(-LARGEST.get(out, torch.inf), LARGEST.get(out, torch.inf))
    found = torch._scaled_mm(
        x.to("hpu"),
        y.to("hpu"),
        *(s.to("hpu") for s in scales),
        scale_result=None if result is None else result.to("hpu"),
        out_dtype=out,
    )
    assert found.dtype == out
    error = (found.cpu().double() - exact).abs()
    assert (error <= exact.abs() * HALF_STEP[out] * 1.01 + 2**-9).all()
