"""Types that the card's operators take and the host's do not."""

import pytest
import torch


@pytest.mark.parametrize("index_type", [torch.int32, torch.int64])
def test_take_by_either_index(index_type):
    values = torch.arange(24.0).view(4, 6)
    index = torch.tensor([[0, 23], [5, 6]])
    found = torch.take(values.to("hpu"), index.to("hpu").to(index_type))
    assert torch.equal(found.cpu(), values.flatten()[index])


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.bfloat16])
def test_uniform_numbers_fill_their_interval(dtype):
    device = torch.Generator("hpu").manual_seed(7)
    filled = torch.empty(4000, dtype=dtype, device="hpu")
    assert filled.uniform_(-50, 10, generator=device) is filled
    numbers = filled.cpu().double()
    assert numbers.min() >= -50
    assert numbers.max() <= 10
    # The mean of 4000 draws is within 5 of its standard errors (60 / sqrt(12) / sqrt(4000)).
    assert abs(numbers.mean() + 20) < 5 * 0.274 + 0.5
    again = torch.empty_like(filled).uniform_(-50, 10, generator=device.manual_seed(7))
    assert torch.equal(again.cpu(), filled.cpu())
    assert not torch.equal(torch.empty_like(filled).uniform_(-50, 10).cpu(), filled.cpu())
