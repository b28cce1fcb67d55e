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


def cost(name, *args, result, overload="default"):
    """Cost of a call of ``torch.ops.<name>``, from shapes alone."""
    import habana_frameworks.torch  # noqa: F401 - defines the hpu operators
    from gaudi_emulator.operator_cost import operator_cost

    namespace, _, operator = name.partition(".")
    op = getattr(getattr(getattr(torch.ops, namespace), operator), overload)
    return operator_cost(op, args, result)


def shape(*sizes, dtype=torch.bfloat16):
    return torch.empty(sizes, dtype=dtype, device="meta")


def test_bytes_and_vector_operations():
    from gaudi_emulator.operator_cost import Cost

    x, row = torch.ones(4, 8), torch.ones(8).expand(4, 8)
    assert cost("aten.add", x, row, result=x + row, overload="Tensor") == Cost(
        vector_flops=32, bytes=128 + 32 + 128
    )
    assert cost("aten.view", x, [32], result=x.view(32)) == Cost()
    assert Cost(1, 2, 3, 4, 5) + Cost(1, 1, 1, 1, 1) == Cost(2, 3, 4, 5, 6)
    assert Cost(1, 2, 3, 4, 5).flops == 6


def test_what_is_not_touched_is_not_moved():
    table, rows = shape(1000, 8), shape(3, dtype=torch.int64)
    found = shape(3, 8)
    assert cost("aten.embedding", table, rows, result=found).bytes == 2 * 48 + 24
    assert cost("aten.index_select", table, 0, rows, result=found).bytes == 2 * 48 + 24
    written = cost("aten.index_copy_", table, 0, rows, found, result=table)
    assert (written.bytes, written.vector_flops) == (2 * 48 + 24, 0)
    put = cost("aten.index_put_", table, [rows], found, False, result=table)
    assert put.bytes == 2 * 48 + 24
    assert cost("aten.copy_", table, shape(1000, 8), False, result=table).bytes == 2 * 16000
    assert cost("aten.zero_", table, result=table).bytes == 16000
    out = shape(4, 4)
    given = cost("aten.add", shape(4, 4), shape(4, 4), 1, out, result=out, overload="out")
    assert given.bytes == 3 * 32, "an out= argument is not read"


FP8 = torch.float8_e4m3fn
TOKENS, HIDDEN, INNER, EXPERTS = 6, 16, 32, 8


def test_operators_of_the_bridge():
    from gaudi_emulator.operator_cost import Cost

    a, b = shape(3, 5, dtype=FP8), shape(7, 5, dtype=FP8)
    gemm = cost("hpu.fp8_gemm_v2", a, False, b, True, None, torch.bfloat16, result=shape(3, 7))
    assert gemm == Cost(fp8_flops=2 * 3 * 5 * 7, bytes=15 + 35 + 42)
    transposed = cost(
        "hpu.fp8_gemm_v2", shape(5, 3, dtype=FP8), True, b, True, None, torch.bfloat16,
        result=shape(3, 7),
    )  # fmt: skip
    assert transposed.fp8_flops == gemm.fp8_flops
    # 4 query heads share 2 of keys and values; values have their own size.
    q, k, v = shape(2, 4, 3, 8), shape(2, 2, 11, 8), shape(2, 2, 11, 6)
    attention = cost(
        "hpu.sdpa_recomp_fwd", q, k, v, None, 0.0, 1.0, True, False, "fast", None, "left",
        result=[shape(2, 4, 3, 6), None, None, None],
    )  # fmt: skip
    scores = 2 * 4 * 3 * 11
    assert attention.matrix_flops == 2 * scores * (8 + 6)
    assert attention.vector_flops == 6 * scores
    assert attention.bytes == 2 * (192 + 352 + 264 + 144)
    grad = shape(2, 4, 3, 6)
    backward = cost(
        "hpu.sdpa_recomp_bwd", grad, q, k, v, None, grad, grad, None, True, 0.0, 1.0, "fast", grad,
        result=[q, k, v],
    )  # fmt: skip
    assert backward.matrix_flops == 2 * attention.matrix_flops + 2 * scores * 8
    norm = cost("hpu.rms_norm", shape(4, 8), shape(8), 1e-6, result=[shape(4, 8), shape(4, 1)])
    assert norm == Cost(vector_flops=4 * 32, bytes=64 + 16 + 64 + 8)
    angles = shape(4, 8)
    rotary = cost(
        "hpu.rotary_pos_embedding", shape(4, 8), angles, angles, None, 0, 0, result=shape(4, 8)
    )
    assert rotary.vector_flops == 3 * 32
    cast = cost("hpu.cast_to_fp8_v2", shape(4, 8), result=[shape(4, 8, dtype=FP8), None])
    assert cast == Cost(vector_flops=64, bytes=64 + 32)
    softmax = cost(
        "hpu.block_softmax", shape(4, 8), shape(4, 8), shape(4, dtype=torch.int32),
        result=[shape(4, 8), shape(4, 1), shape(4, 1)],
    )  # fmt: skip
    assert softmax.vector_flops == 6 * 32


@pytest.mark.parametrize(
    ("k", "total", "rows", "read"), [(2, 0, 12, 1.0), (1, 0, 6, 6 / 8), (2, 32, 3, 1.0)]
)
def test_mixture_of_experts(k, total, rows, read):
    """Rows of this card's experts, and no more weights than rows."""
    w12 = [shape(2 * INNER, HIDDEN) for _ in range(EXPERTS)]
    w3 = [shape(HIDDEN, INNER) for _ in range(EXPERTS)]
    hidden, routing = shape(TOKENS, HIDDEN), shape(TOKENS, k, dtype=torch.int64)
    args = (hidden, routing, shape(TOKENS, k), w12, w3, True, "silu", 0, EXPERTS - 1)
    args += (True, 0, total)
    work = cost("hpu.mixture_of_experts", *args, result=hidden, overload="fused_weights")
    assert work.matrix_flops == 2 * rows * 3 * HIDDEN * INNER
    weights = EXPERTS * 3 * HIDDEN * INNER * 2
    small = 2 * TOKENS * HIDDEN * 2 + TOKENS * k * (8 + 2)
    assert work.bytes == weights * read + small


def test_an_operator_of_another_library_is_not_guessed():
    with torch.library._scoped_library("elsewhere", "DEF") as library:
        library.define("product(Tensor x) -> Tensor")
        with pytest.raises(NotImplementedError, match="elsewhere::product"):
            cost("elsewhere.product", shape(4), result=shape(4))


def test_every_operator_of_the_bridge_has_a_cost():
    """None is refused, and those with products are known to have them."""
    import habana_frameworks.torch  # noqa: F401
    from gaudi_emulator.matrix_cost import _EXPERTS, _OWN

    products = set()
    for schema in torch._C._jit_get_all_schemas():
        if schema.name.startswith("hpu::"):
            name = schema.name.removeprefix("hpu::")
            if any(part in name for part in ("gemm", "sdpa", "conv2d", "experts")):
                products.add(name)
    assert products
    assert {n for n in products if n not in _OWN and not n.startswith(_EXPERTS)} == set()
