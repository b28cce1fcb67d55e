"""Operations and bytes of operators, against PyTorch's own counter, and the roofline's peaks."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from .conftest import emulated_only

pytestmark = emulated_only


class Counting(TorchDispatchMode):
    """Sums the costs of what runs inside."""

    def __init__(self):
        super().__init__()
        self.costs = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        from gaudi_emulator.operator_cost import operator_cost

        result = func(*args, **(kwargs or {}))
        self.costs.append(operator_cost(func, args, result))
        return result


def _conv(transposed):
    x, weight = (
        torch.ones(2, 4, 9, 7),
        torch.ones(4, 3, 3, 2) if transposed else torch.ones(6, 2, 3, 2),
    )
    call = torch.nn.functional.conv_transpose2d if transposed else torch.nn.functional.conv2d
    return call(x, weight, stride=2, groups=1 if transposed else 2)


@pytest.mark.parametrize(
    "run",
    [
        lambda: torch.ones(3, 5) @ torch.ones(5, 7),
        lambda: torch.addmm(torch.ones(7), torch.ones(3, 5), torch.ones(5, 7)),
        lambda: torch.bmm(torch.ones(2, 3, 5), torch.ones(2, 5, 7)),
        lambda: torch.baddbmm(torch.ones(1), torch.ones(2, 3, 5), torch.ones(2, 5, 7)),
        lambda: _conv(False),
        lambda: _conv(True),
        lambda: torch.nn.functional.scaled_dot_product_attention(
            torch.ones(2, 3, 5, 8), torch.ones(2, 3, 11, 8), torch.ones(2, 3, 11, 8)
        ),
    ],
    ids=["mm", "addmm", "bmm", "baddbmm", "conv", "conv_transpose", "sdpa"],
)
def test_matrix_operations_as_pytorch_counts_them(run):
    # PyTorch's counter has no formula for the CPU's fused attention, but sees its two products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as reference:
        run()
    with Counting() as counting:
        run()
    assert sum(c.matrix_flops for c in counting.costs) == reference.get_total_flops() > 0


def test_bytes_and_vector_operations():
    import habana_frameworks.torch  # noqa: F401 - defines the hpu operators
    from gaudi_emulator.operator_cost import Cost, operator_cost

    aten = torch.ops.aten
    x, row = torch.ones(4, 8), torch.ones(8).expand(4, 8)
    assert operator_cost(aten.add.Tensor, (x, row), x + row) == Cost(0, 32, 128 + 32 + 128)
    assert operator_cost(aten.view.default, (x, [32]), x.view(32)) == Cost()
    with pytest.raises(NotImplementedError, match="hpu::"):
        operator_cost(torch.ops.hpu.fp8_gemm_v2.default, (x,), x)


def test_the_bound_is_the_slowest_engine_and_peaks_agree_with_the_plugin():
    from gaudi_emulator.operator_cost import Cost
    from gaudi_emulator.roofline import PEAKS

    from vllm_hpu.shapes.cost import GAUDI2, GAUDI3

    for name, card in (("GAUDI2", GAUDI2), ("GAUDI3", GAUDI3)):
        assert PEAKS[name].bf16_flops_per_s == card.flops_per_s
        assert PEAKS[name].bytes_per_s == card.bytes_per_s
    gaudi2 = PEAKS["GAUDI2"]
    assert gaudi2.predicted_seconds(Cost(865 * 10**12, 0, 0), fp8=True) == 1.0
    assert gaudi2.predicted_seconds(Cost(432 * 10**12, 33 * 10**12, 1)) == 3.0
    assert gaudi2.predicted_seconds(Cost(0, 0, 492 * 10**10)) == 2.0
