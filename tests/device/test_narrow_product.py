"""Products of a few rows with a weight: exact to bfloat16's rounding, whatever the shape."""

import gaudi_emulator
import pytest
import torch
import torch.nn.functional as F
from gaudi_emulator import _C

DEVICE = "hpu"


def _parts(rows: int, inner: int, columns: int, dtype: torch.dtype = torch.bfloat16):
    generator = torch.Generator().manual_seed(rows * 100_003 + inner * 17 + columns)
    x = torch.randn(rows, inner, generator=generator).to(dtype)
    weight = torch.randn(columns, inner, generator=generator).to(dtype)
    bias = torch.randn(columns, generator=generator).to(dtype)
    return x, weight, bias


def _close(result: torch.Tensor, exact: torch.Tensor) -> None:
    # One rounding of the result, and float32 sums of up to 2048 products of size one.
    torch.testing.assert_close(result.cpu().double(), exact, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 16, 31, 64, 65])
@pytest.mark.parametrize(
    ("inner", "columns"), [(768, 64), (33, 7), (2048, 144), (2048, 130), (95, 4), (32, 5)]
)
def test_linear_of_few_rows(rows: int, inner: int, columns: int) -> None:
    x, weight, bias = _parts(rows, inner, columns)
    exact = x.double() @ weight.double().t()
    _close(F.linear(x.to(DEVICE), weight.to(DEVICE)), exact)
    _close(F.linear(x.to(DEVICE), weight.to(DEVICE), bias.to(DEVICE)), exact + bias.double())


@pytest.mark.parametrize("columns", [1, 3, 40, 48])
def test_rows_and_weights_with_gaps(columns: int) -> None:
    x, weight, _ = _parts(6, 64, columns)
    wide_x = torch.zeros(6, 100, dtype=x.dtype, device=DEVICE)
    wide_x[:, 10:74] = x.to(DEVICE)
    wide_w = torch.zeros(2 * columns, 70, dtype=x.dtype, device=DEVICE)
    wide_w[::2, 3:67] = weight.to(DEVICE)
    result = F.linear(wide_x[:, 10:74], wide_w[::2, 3:67])
    _close(result, x.double() @ weight.double().t())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_untransposed_and_other_dtypes(dtype: torch.dtype) -> None:
    x, weight, _ = _parts(4, 64, 48, dtype)
    matrix = weight.t().contiguous()
    result = torch.mm(x.to(DEVICE), matrix.to(DEVICE))
    torch.testing.assert_close(result.cpu(), torch.mm(x, matrix))


def test_addmm_with_factors_and_a_matrix() -> None:
    x, weight, bias = _parts(4, 64, 48)
    on_card = (bias.to(DEVICE), x.to(DEVICE), weight.to(DEVICE).t())
    exact = x.double() @ weight.double().t()
    _close(torch.addmm(*on_card, beta=2, alpha=0.5), 2 * bias.double() + 0.5 * exact)
    full = torch.ones(4, 48, dtype=x.dtype)
    _close(torch.addmm(full.to(DEVICE), *on_card[1:]), full.double() + exact)


def test_wrong_shapes_raise_as_ever() -> None:
    x, weight, _ = _parts(4, 64, 48)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        torch.mm(x.to(DEVICE), weight.to(DEVICE))


def test_gradients_pass() -> None:
    x, weight, _ = _parts(4, 64, 48)
    weight_on_card = weight.to(DEVICE).requires_grad_()
    F.linear(x.to(DEVICE), weight_on_card).sum().backward()
    assert weight_on_card.grad is not None
    expected = x.float().sum(0).expand(48, 64)
    torch.testing.assert_close(weight_on_card.grad.cpu().float(), expected, rtol=2**-7, atol=1e-2)


def test_graph_replays_into_results_and_workspace() -> None:
    x, weight, bias = (part.to(DEVICE) for part in _parts(4, 64, 64))
    graph = _C.Graph()
    with torch.inference_mode():
        F.linear(F.linear(x, weight), weight, bias)
        graph.capture_begin()
        result = F.linear(F.linear(x, weight), weight, bias)
        graph.capture_end()
        x.copy_(torch.randn(4, 64).to(torch.bfloat16))
        before = gaudi_emulator.counters()
        graph.replay()
        assert (gaudi_emulator.counters() - before).graph_launches == 1
        expected = F.linear(F.linear(x, weight), weight, bias)
    assert torch.equal(result.cpu(), expected.cpu())
