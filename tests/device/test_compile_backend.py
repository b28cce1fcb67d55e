"""``torch.compile(backend="hpu_backend")``: results, counted compilations, refusals."""

import gaudi_emulator
import habana_frameworks.torch
import pytest
import torch
from habana_frameworks.torch.dynamo.compile_backend import config
from habana_frameworks.torch.internal import bridge_config
from habana_frameworks.torch.utils import internal

from .conftest import emulated_only, run_python

pytestmark = emulated_only


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No compiled code from other tests, and the mode that the backend needs."""
    monkeypatch.setattr(internal._Mode, "lazy", False)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Since:
    """What the device counted since this object was made."""

    def __init__(self):
        self.before = gaudi_emulator.counters()

    @property
    def counters(self):
        return gaudi_emulator.counters() - self.before

    @property
    def compilations(self):
        return self.counters.compilations.get("hpu_backend", 0)


def layer(x, gamma):
    y = torch.ops.hpu.rms_norm(x, gamma, 1e-6)[0]
    return torch.nn.functional.silu(y) * y + x


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_static_shapes_compile_once_each(guard):
    run = torch.compile(layer, backend="hpu_backend", dynamic=False, fullgraph=True)
    gamma = torch.rand(16, device="hpu")
    since = Since()
    with guard():
        for rows in (2, 3, 2, 3, 4):
            x = torch.randn(rows, 16, device="hpu")
            torch.testing.assert_close(run(x, gamma), layer(x, gamma))
    assert since.compilations == 3


def test_a_symbolic_graph_compiles_per_shape():
    """One trace for all sizes, but a recipe of the card has exact shapes."""
    run = torch.compile(
        layer, backend="hpu_backend", dynamic=True, options={"force_static_compile": True}
    )
    gamma = torch.rand(16, device="hpu")
    since = Since()
    with torch.no_grad():
        for rows in (2, 3, 5, 3, 2, 5):
            x = torch.randn(rows, 16, device="hpu")
            torch.testing.assert_close(run(x, gamma), layer(x, gamma))
    assert since.compilations == 3


def test_one_call_is_one_launch():
    gamma = torch.rand(16, device="hpu")
    x = torch.randn(4, 16, device="hpu")
    run = torch.compile(layer, backend="hpu_backend", dynamic=False)
    with torch.no_grad():
        run(x, gamma)
        since = Since()
        run(x, gamma)
    assert since.counters.region_launches == 1
    assert since.counters.eager_launches == 0
    assert since.counters.fused_ops > 3


def test_in_place_writes_reach_the_callers_tensor():
    @torch.compile(backend="hpu_backend", dynamic=False)
    def store(cache, slots, rows):
        cache.index_copy_(0, slots, rows)
        return cache.sum()

    cache = torch.zeros(8, 4, device="hpu")
    with torch.inference_mode():
        total = store(cache, torch.tensor([1, 3], device="hpu"), torch.ones(2, 4, device="hpu"))
    assert total.item() == 8
    assert cache.sum(1).tolist() == [0, 4, 0, 4, 0, 0, 0, 0]


def test_a_module_that_forgets_no_grad():
    module = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU()).to("hpu")
    run = torch.compile(module, backend="hpu_backend", dynamic=False)
    x = torch.randn(3, 8, device="hpu")
    since = Since()
    y = run(x)
    torch.testing.assert_close(y, module(x))
    assert since.compilations == 1
    y.sum().backward()
    assert module[0].weight.grad is not None
    assert module[0].weight.grad.device.type == "hpu"


@pytest.mark.filterwarnings("error")
def test_a_backward_graph_frees_what_the_forward_graph_saved():
    """Each activation after its last use, unless ``use_boxed_input`` is off."""
    mebibyte = 1 << 20

    def chain(x):
        return x.exp().exp().exp().exp().sum()

    def peak_of_backward(**arguments):
        torch._dynamo.reset()
        run = torch.compile(chain, backend="hpu_backend", dynamic=False, **arguments)
        wanted = torch.full((mebibyte // 4,), -1.0, requires_grad=True)
        chain(wanted).backward()
        for _ in range(2):  # the first run compiles, and records where that is possible
            x = torch.full((mebibyte // 4,), -1.0, device="hpu", requires_grad=True)
            result = run(x)
            torch.hpu.reset_peak_memory_stats()
            before = torch.hpu.memory_allocated()
            result.backward()
            peak = torch.hpu.max_memory_allocated() - before
            torch.testing.assert_close(x.grad.cpu(), wanted.grad)
        return peak

    assert peak_of_backward() < 1.5 * mebibyte
    with config.patch(use_boxed_input=False):
        assert peak_of_backward() >= 3 * mebibyte
    assert peak_of_backward(options={"use_boxed_input": False}) >= 3 * mebibyte


@pytest.mark.parametrize("op", ["attention", "experts", "fp8", "rotary"])
def test_operators_of_the_bridge_trace(op):
    """Every operator has a shape function: the whole function is one graph."""
    q = torch.randn(2, 4, 6, 16, device="hpu")
    routes = torch.randint(0, 3, (6, 2), device="hpu")
    weights = torch.rand(6, 2, device="hpu")
    w12 = [torch.randn(16, 16, device="hpu") for _ in range(3)]
    w3 = [torch.randn(16, 8, device="hpu") for _ in range(3)]
    functions = {
        "attention": lambda: habana_frameworks.torch.hpex.kernels.FusedSDPA.apply(
            q, q, q, None, 0.0, True, None, "fast", True
        ),
        "experts": lambda: torch.ops.hpu.mixture_of_experts.fused_weights(
            q[0, 0], routes, weights, w12, w3, True, "silu", 0, 2
        ),
        "fp8": lambda: torch.ops.hpu.cast_from_fp8(
            torch.ops.hpu.cast_to_fp8_v2(q, None, False, False, torch.float8_e4m3fn)[0],
            None,
            torch.float32,
        ),
        "rotary": lambda: torch.ops.hpu.rotary_pos_embedding(q, q, q, None, 0, 0),
    }
    function = functions[op]
    run = torch.compile(function, backend="hpu_backend", dynamic=False, fullgraph=True)
    since = Since()
    with torch.no_grad():
        torch.testing.assert_close(run(), function())
    assert since.compilations == 1


def test_the_backend_is_listed():
    assert "hpu_backend" in torch._dynamo.list_backends()


def test_wrong_options_and_flags_are_refused(monkeypatch):
    x = torch.ones(2, device="hpu")

    def compiled(**arguments):
        torch._dynamo.reset()
        with torch.no_grad():
            return torch.compile(lambda t: t + 1, backend="hpu_backend", **arguments)(x)

    assert compiled(options={"use_graph_freezing": False}).tolist() == [2, 2]
    assert compiled(mode="reduce-overhead").tolist() == [2, 2]  # ignored, as by the bridge
    with pytest.raises(Exception, match=r"unknown option\(s\) \['fast'\]"):
        compiled(options={"fast": True})
    with (
        bridge_config.env_setting("PT_HPU_DISALLOW_TORCH_COMPILE", True),
        pytest.raises(Exception, match="PT_HPU_DISALLOW_TORCH_COMPILE"),
    ):
        compiled()
    monkeypatch.setattr(internal._Mode, "lazy", True)
    with pytest.raises(Exception, match="lazy mode"):
        compiled()


@pytest.mark.parametrize("gradients", [False, True])
def test_constants_of_the_host_are_part_of_the_recipe(gradients):
    """With gradients AOTAutograd makes an attribute of the graph of what is a call otherwise."""

    def compiled(factor):
        torch._dynamo.reset()
        constants = torch.tensor([factor, 1.0])

        def scale(x):
            return (
                x * torch.tensor(factor) + torch.tensor([factor, 1.0], device="hpu") + constants[1]
            )

        run = torch.compile(scale, backend="hpu_backend", dynamic=False)
        x = torch.ones(2, device="hpu", requires_grad=gradients)
        since = Since()
        torch.testing.assert_close(run(x), scale(x))
        return since.compilations

    assert [compiled(factor) for factor in (2.0, 2.0, 3.0)] == [1, 0, 1]


def test_names_of_inputs_do_not_make_another_recipe():
    """Layers that are compiled apart, as those of several models, share a recipe per shape."""

    class Layer(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.linear = torch.nn.Linear(width, width)

        def forward(self, x):
            return torch.relu(self.linear(x)) + x

    torch._dynamo.reset()
    found = []
    for width in (8, 8, 16):
        layers = torch.nn.ModuleList(Layer(width) for _ in range(2)).to("hpu")
        runs = [torch.compile(layer, backend="hpu_backend", dynamic=False) for layer in layers]
        since = Since()
        with torch.no_grad():
            for run in runs:
                run(torch.ones(3, width, device="hpu"))
        found.append(since.compilations)
        torch._dynamo.reset()
    assert found == [1, 0, 1]


@pytest.mark.parametrize("first", ["import habana_frameworks.torch", "pass"])
def test_pytorch_finds_the_backend_with_and_without_the_bridge(first):
    """Once, whoever loads it: by name, PyTorch goes through the package's entry point."""
    done = run_python(
        f"{first}\n"
        "import torch\n"
        "double = torch.compile(lambda x: x * 2, backend='hpu_backend')\n"
        "print(double(torch.ones(2)).tolist(), 'hpu_backend' in torch._dynamo.list_backends())",
        PT_HPU_LAZY_MODE="0",
    )
    assert done.stdout.strip() == "[2.0, 2.0] True", done.stderr[-2000:]
