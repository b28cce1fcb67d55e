"""Operators under ``torch.autocast("hpu")`` have the types that the card's lists give them."""

import pytest
import torch
import torch.nn.functional as F

from tests.device.conftest import run_python

ON = {"device_type": "hpu", "dtype": torch.bfloat16}


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(4, 4).to("hpu")


def test_lowered(x: torch.Tensor) -> None:
    low = x.bfloat16()
    with torch.autocast(**ON):
        found = [x @ x, x.softmax(-1), x.log_softmax(0), x * x, F.linear(x, x), x.mean(-1)]
    wanted = [
        low @ low,
        low.softmax(-1),
        low.log_softmax(0),
        low * low,
        F.linear(low, low),
        low.mean(-1),
    ]
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype is torch.bfloat16
        assert torch.equal(one.cpu(), other.cpu())
    assert (x @ x).dtype is torch.float32


def test_widened(x: torch.Tensor) -> None:
    low = x.bfloat16()
    with torch.autocast(**ON):
        found = [low.exp(), low / low, low.pow(2), low.rsqrt()]
    wide = low.float().cpu()
    wanted = [wide.exp(), torch.ones(4, 4), wide**2, wide.rsqrt()]
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype is torch.float32
        torch.testing.assert_close(one.cpu(), other.cpu())


def test_promoted(x: torch.Tensor) -> None:
    low = x.bfloat16()
    with torch.autocast(**ON):
        assert (low + x).dtype is torch.float32
        assert (low + low).dtype is torch.bfloat16
        assert torch.cat([low, x]).dtype is torch.float32


def test_a_norm_keeps_its_weight(x: torch.Tensor) -> None:
    """Statistics are those of the lowered input; weight and bias stay float32."""
    weight, bias = torch.rand(2, 4).to("hpu")
    with torch.autocast(**ON):
        found = F.layer_norm(x, (4,), weight, bias)
    numbers = (weight.cpu().double(), bias.cpu().double())
    wanted = F.layer_norm(x.bfloat16().cpu().double(), (4,), *numbers)
    torch.testing.assert_close(found.cpu().double(), wanted, rtol=1e-2, atol=1e-2)


def test_float64_and_integers_stay(x: torch.Tensor) -> None:
    with torch.autocast(**ON):
        assert (x.double() @ x.double()).dtype is torch.float64
        assert (torch.ones(2, device="hpu", dtype=torch.int32) * 2).dtype is torch.int32


def test_gradients_have_the_type_of_their_tensor(x: torch.Tensor) -> None:
    x.requires_grad_()
    with torch.autocast(**ON):
        (x @ x).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype is torch.float32


def test_compiled(x: torch.Tensor) -> None:
    def both(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a @ a, (a @ a).exp()

    with torch.autocast(**ON):
        product, exponential = torch.compile(both, backend="hpu_backend")(x)
    assert product.dtype is torch.bfloat16
    assert exponential.dtype is torch.float32


def test_lists_of_the_user(tmp_path) -> None:
    lower, wide = tmp_path / "lower", tmp_path / "wide"
    lower.write_text("mm\nadd\n")
    wide.write_text("matmul\n")
    done = run_python(
        "import torch, habana_frameworks.torch\n"
        "x = torch.ones(2, 2, device='hpu')\n"
        "with torch.autocast('hpu', dtype=torch.bfloat16):\n"
        "    found = torch.mm(x, x), x + x, torch.matmul(x, x), x.softmax(0)\n"
        "print(*[one.dtype for one in found])",
        PT_HPU_AUTOCAST_LOWER_PRECISION_OPS_LIST=str(lower),
        PT_HPU_AUTOCAST_FP32_OPS_LIST=str(wide),
    )
    low, wide = "torch.bfloat16", "torch.float32"
    assert done.stdout.split() == [low, low, wide, wide], done.stderr
