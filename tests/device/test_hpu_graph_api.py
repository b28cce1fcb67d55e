"""HPU graphs through the bridge: ``HPUGraph``, ``graph``, ``wrap_in_hpu_graph`` and relatives."""

import dataclasses
from typing import NamedTuple

import habana_frameworks.torch as htorch
import pytest
import torch
from habana_frameworks.torch.hpu.metrics import metric_localcontext
from habana_frameworks.torch.utils import internal


@pytest.fixture
def lazy(monkeypatch):
    """The lazy mode, which a process otherwise chooses before it imports the bridge."""
    monkeypatch.setattr(internal._Mode, "lazy", True)


@pytest.fixture
def eager(monkeypatch):
    monkeypatch.setattr(internal._Mode, "lazy", False)


class Counting(torch.nn.Module):
    """Counts its Python calls: a replay makes none."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)
        self.calls = 0

    def forward(self, x, factor=1, extra=None):
        self.calls += 1
        y = self.linear(x) * factor
        return y if extra is None else y + extra["bias"]


@pytest.fixture
def module():
    torch.manual_seed(0)
    with torch.no_grad():
        yield Counting().to("hpu")


def reference(module, x, factor=1, bias=None):
    """The module's result, computed on the host."""
    weight, offset = module.linear.weight.cpu(), module.linear.bias.cpu()
    y = torch.nn.functional.linear(x.cpu(), weight, offset) * factor
    return y if bias is None else y + bias.cpu()


def compilations():
    return dict(htorch.hpu.metrics.metric_global("graph_compilation").stats())["TotalNumber"]


def test_graphs_need_the_lazy_mode(eager, module):
    for attempt in (
        lambda: htorch.hpu.wrap_in_hpu_graph(module),
        lambda: htorch.hpu.wrap_in_hpu_graph_func(module.forward),
        lambda: htorch.hpu.HPUGraph().capture_begin(),
    ):
        with pytest.raises(RuntimeError, match="PT_HPU_LAZY_MODE=1"):
            attempt()


def test_capture_and_replay(lazy):
    x = torch.arange(4.0, device="hpu")
    graph = torch.hpu.HPUGraph()
    with torch.hpu.graph(graph):
        y = x * 2 + 1
    assert y.tolist() == [1, 3, 5, 7]
    x.fill_(10)
    graph.replay(asynchronous=True)
    assert y.tolist() == [21] * 4
    graph.replayV2([x], [torch.zeros(4, device="hpu")])
    assert y.tolist() == [1] * 4
    graph.mark_user_inputs([x])
    assert graph.get_user_input_match_indices() == [0]
    graph.replayV3([torch.ones(4, device="hpu")])
    assert y.tolist() == [3] * 4
    graph.clear_inputs()
    with pytest.raises(ValueError, match="0 input tensors, got 1"):
        graph.replayV3([x])


def test_an_error_inside_a_capture_ends_it(lazy):
    graph = torch.hpu.HPUGraph()
    x = torch.ones(3, device="hpu")
    with pytest.raises(RuntimeError, match="host"), torch.hpu.graph(graph):
        x.sum().item()
    with torch.hpu.graph(graph):
        y = x + 1
    graph.replay()
    assert y.tolist() == [2.0] * 3


def test_wrapped_module_replays_without_python(lazy, module):
    wrapped = htorch.hpu.wrap_in_hpu_graph(module)
    assert wrapped is module
    inputs = [torch.randn(3, 8, device="hpu") for _ in range(4)]
    expected = [reference(module, x) for x in inputs]
    with metric_localcontext("graph_compilation") as metric:
        for x, y in zip(inputs, expected, strict=True):
            torch.testing.assert_close(module(x).cpu(), y)
    assert module.calls == 1
    assert dict(metric.stats())["TotalNumber"] == 1


def test_one_graph_per_signature(lazy, module):
    htorch.hpu.wrap_in_hpu_graph(module)
    wide = torch.randn(3, 16, device="hpu")
    calls = [
        ((torch.randn(3, 8, device="hpu"),), {}),
        ((torch.randn(5, 8, device="hpu"),), {}),  # another shape
        ((wide[:, :8],), {}),  # other strides
        ((torch.randn(3, 8, device="hpu"),), {"factor": 2}),  # another value
        ((torch.randn(3, 8, device="hpu"),), {"extra": {"bias": torch.ones(8, device="hpu")}}),
    ]
    before = compilations()
    for _ in range(2):
        for args, kwargs in calls:
            bias = kwargs.get("extra", {}).get("bias")
            expected = reference(module, args[0], kwargs.get("factor", 1), bias)
            torch.testing.assert_close(module(*args, **kwargs).cpu(), expected)
    assert module.calls == compilations() - before == len(calls)
    module.clear_cache()
    module(*calls[0][0])
    assert module.calls == len(calls) + 1


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


@dataclasses.dataclass
class Metadata:
    length: int
    table: torch.Tensor


def test_structured_inputs_are_copied_leaf_by_leaf(lazy):
    run = htorch.hpu.wrap_in_hpu_graph_func(
        lambda pair, meta: pair.left * meta.length + pair.right + meta.table
    )

    def call(a, b, c, length):
        tensors = [torch.full((2,), float(v), device="hpu") for v in (a, b, c)]
        return run(Pair(tensors[0], tensors[1]), Metadata(length, tensors[2])).tolist()

    before = compilations()
    assert call(1, 2, 3, 4) == [9, 9]
    assert call(10, 20, 30, 4) == [90, 90]
    assert compilations() - before == 1
    assert call(1, 1, 1, 5) == [7, 7]
    assert compilations() - before == 2


def test_first_inputs_and_outputs_are_the_graphs_own(lazy, module):
    """The two traps that the card has: first inputs are overwritten, outputs are reused."""
    htorch.hpu.wrap_in_hpu_graph(module)
    first, second = torch.zeros(1, 8, device="hpu"), torch.ones(1, 8, device="hpu")
    out = module(first)
    assert module(second) is out
    assert first.tolist() == second.tolist()


def test_bypass_warmup_and_limit(lazy, module):
    htorch.hpu.wrap_in_hpu_graph(module, max_graphs=1, asynchronous=True)
    x = torch.randn(2, 8, device="hpu")
    module(x, bypass_hpu_graphs=True)
    module(x, bypass_hpu_graphs=True)
    assert module.calls == 2
    out = module(x)
    before = out.clone()
    x2 = torch.randn(2, 8, device="hpu")
    assert module(x2, warmup_mode=True) is out
    assert torch.equal(out, before), "warm-up replayed"
    torch.testing.assert_close(module(x2).cpu(), reference(module, x2))
    assert module.calls == 3
    other = torch.randn(4, 8, device="hpu")
    for _ in range(2):
        torch.testing.assert_close(module(other).cpu(), reference(module, other))
    assert module.calls == 5, "more graphs than max_graphs"


@pytest.mark.parametrize("options", [{"disable_tensor_cache": True}, {"dry_run": True}])
def test_results_do_not_depend_on_the_memory_options(lazy, module, options):
    htorch.hpu.wrap_in_hpu_graph(module, **options)
    for _ in range(3):
        x = torch.randn(2, 8, device="hpu")
        expected = reference(module, x)
        torch.testing.assert_close(module(x).cpu(), expected)
    module.clear_inputs()
    assert module.calls == 1


def test_inputs_that_a_graph_cannot_follow_are_refused(lazy, module):
    htorch.hpu.wrap_in_hpu_graph(module)
    with pytest.raises(ValueError, match="baked into the graph"):
        module(torch.randn(2, 8))
    with pytest.raises(TypeError, match="neither a tensor"):
        module(torch.randn(2, 8, device="hpu"), factor=bytearray(1))


def test_module_cacher_and_graphed_callables(lazy, module):
    x = torch.randn(2, 8, device="hpu")
    run = htorch.hpu.make_graphed_callables(module, (x,), warmups=2)
    assert module.calls == 3
    new = torch.randn(2, 8, device="hpu")
    torch.testing.assert_close(run(new).cpu(), reference(module, new))
    assert module.calls == 3
    cached = htorch.hpu.ModuleCacher()(module)
    cached(new)
    torch.testing.assert_close(cached(x).cpu(), reference(module, x))
    assert module.calls == 4
    with pytest.raises(NotImplementedError, match="inplace"):
        htorch.hpu.ModuleCacher()(module, inplace=False)
    with pytest.raises(NotImplementedError, match="backward"), torch.enable_grad():
        htorch.hpu.make_graphed_callables(module, (x.clone().requires_grad_(),))


def test_bridge_operators_are_captured(lazy):
    """Norm, rotary embedding and attention run from a graph with new contents."""
    gamma = torch.rand(32, device="hpu")
    table = torch.rand(1, 6, 1, 32, device="hpu")

    def layer(x):
        y = torch.ops.hpu.rms_norm(x, gamma, 1e-6)[0]
        y = torch.ops.hpu.rotary_pos_embedding(y, table, table, None, 0, 0).transpose(1, 2)
        return htorch.hpex.kernels.FusedSDPA.apply(
            y, y, y, None, 0.0, True, None, "fast", True, None, "right", False, False, (3, 0)
        )

    run = htorch.hpu.wrap_in_hpu_graph_func(layer)
    with torch.no_grad():
        for _ in range(3):
            x = torch.randn(2, 6, 4, 32, device="hpu")
            torch.testing.assert_close(run(x).cpu(), layer(x.clone()).cpu())
