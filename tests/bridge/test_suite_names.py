"""Names and operators of the bridge that its own test suite asks for."""

import json

import pytest
import torch
from habana_frameworks.torch.dynamo.compile_backend import passes, shared_layer
from habana_frameworks.torch.utils.debug.dynamo_utils import FxGraphAnalyzer
from habana_frameworks.torch.utils.internal import _Mode


def test_a_compiled_graph_says_what_it_consists_of(monkeypatch):
    monkeypatch.setattr(_Mode, "lazy", False)
    monkeypatch.setattr(shared_layer, "hpu_fallback_op_list", {"mul"})
    for logger in (passes.logger, shared_layer.logger):
        logger.set_store_data(True)
    run = torch.compile(
        lambda x: (x + torch.randn_like(x)) * torch.rand(2, device="hpu"), backend="hpu_backend"
    )
    with FxGraphAnalyzer(reset_dynamo=True) as analyzer:
        run(torch.ones(2, device="hpu"))
    (graph,) = analyzer.get_ops_summary()
    assert (graph["torch.ops.aten.add.Tensor"].graph_count, analyzer.get_partition_num()) == (1, 1)
    assert graph["torch.ops.aten.mul.Tensor"].eager_count == 1
    (text,) = passes.logger.data
    assert "aten::add(" in text
    assert "hpu::habana_rand(" in text, "a card draws random numbers from a seed"
    assert "hpu::habana_randn(" in text, "in the shape of a tensor, too"
    assert "mul" not in text
    assert "[PT_COMPILE] Node: mul requires fallback: True" in shared_layer.logger.data
    for logger in (passes.logger, shared_layer.logger):
        logger.set_store_data(False)


def test_tensor_packer():
    x, y = torch.ones(1, device="hpu"), torch.zeros(1, device="hpu")
    packer = torch.hpu.TensorPacker()
    tensors, metadata = packer.pack(({"x": x}, [y, 3]))
    assert str(metadata) == "({'x': #0}, [#1, 3])"
    assert packer.unpack((y, x), metadata) == ({"x": y}, [x, 3])
    assert tensors == (x, y)


def test_older_fp8_operators_write_into_given_tensors():
    torch.manual_seed(0)
    a, b = (torch.randn(4, 4, device="hpu") for _ in range(2))
    narrow, amax = torch.empty(4, 4, dtype=torch.float8_e4m3fn, device="hpu"), a.new_empty(())
    torch.ops.hpu.cast_to_fp8(a, None, False, narrow, amax)
    assert amax == a.abs().max()
    other, _ = torch.ops.hpu.cast_to_fp8_v2(b, None, False, False, torch.float8_e4m3fn)
    out = torch.full_like(a, 2.0)
    torch.ops.hpu.fp8_gemm(narrow, True, other, False, out, a.dtype, None, None, a, True, out)
    expected = narrow.cpu().double().T @ other.cpu().double() + a.cpu().double() + 2
    torch.testing.assert_close(out.cpu().double(), expected, rtol=1e-5, atol=1e-3)


def test_operators_that_the_host_has_for_fewer_types():
    start, end = torch.tensor([0, 3, 9]), torch.tensor([10, 6, 1])
    expected = torch.lerp(start.double(), end.double(), 2.5).int()
    got = torch.lerp(start.int().to("hpu"), end.int().to("hpu"), 2.5)
    assert got.dtype == torch.int
    assert torch.equal(got.cpu(), expected)
    assert torch.tensor([True, False], device="hpu").trunc().tolist() == [True, False]


def test_booleans_move_as_bytes():
    bits = torch.randn(8).view(torch.bool)
    there = bits.to("hpu")
    assert torch.equal(there.view(torch.float).cpu(), bits.view(torch.float))
    other = torch.empty_like(there).copy_(there)
    assert torch.equal(other.view(torch.float).cpu(), bits.view(torch.float))


def test_complex_numbers_stay_on_the_host():
    parts = torch.ones(2, device="hpu")
    assert torch.complex(parts, parts).device.type == "cpu"


def test_resize_output():
    out = torch.zeros(6, device="hpu")
    torch.ops.aten._resize_output_(out, [2, 2], out.device)
    assert out.shape == (2, 2)


def test_streams_have_numbers():
    stream = torch.hpu.Stream()
    assert torch.hpu.get_stream_info(stream) == (torch.device("hpu:0"), stream.id())
    assert torch.hpu.default_stream().id() == 0 != stream.id()


def test_the_host_seeds_the_cards():
    value = torch.seed()
    assert torch.hpu.initial_seed() == torch.initial_seed() == value
    torch.hpu.seed()
    assert torch.hpu.initial_seed() != torch.initial_seed()


def test_determinism_is_pytorchs():
    with pytest.warns(DeprecationWarning, match="deterministic_algorithms"):
        torch.hpu.setDeterministic(True)
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    with pytest.warns(DeprecationWarning, match="deterministic_algorithms"):
        assert not torch.hpu.getDeterministic()


def test_rows_are_copied_within_one_tensor():
    table = torch.arange(4.0, device="hpu")
    table.index_copy_(0, torch.tensor([1, 2, 3], device="hpu"), table[:3])
    assert table.tolist() == [0, 0, 1, 2], "all of the source is read before anything is written"


def test_rows_are_copied_within_one_tensor_at_every_replay(monkeypatch):
    monkeypatch.setattr(_Mode, "lazy", True)
    table, index = torch.arange(4.0, device="hpu"), torch.tensor([1, 2, 3], device="hpu")
    graph = torch.hpu.HPUGraph()
    with torch.hpu.graph(graph):
        table.index_copy_(0, index, table[:3])
    table.copy_(torch.arange(10.0, 14.0))
    graph.replay()
    assert table.tolist() == [10, 10, 11, 12]
    graph.replay()
    assert table.tolist() == [10, 10, 10, 11]


def test_the_profiler_that_is_switched_by_hand(tmp_path, monkeypatch):
    from gaudi_emulator.trace_file import read
    from habana_frameworks.torch.low_overhead_profiler import profiler

    monkeypatch.chdir(tmp_path)
    x = torch.ones(3, device="hpu")
    torch.relu(x)
    profiler.start()
    torch.pow(x, 2)
    profiler.stop()
    torch.relu(x)
    profiler.flush()
    (events,) = tmp_path.glob("events_pid*.json")
    assert [name for _, name in read([events]).groups] == ["aten::pow"]
    (metrics,) = tmp_path.glob("metrics_pid*.json")
    assert "graph_compilation" in json.loads(metrics.read_text())


def test_a_compiled_graph_has_the_operators_that_a_card_has(monkeypatch):
    monkeypatch.setattr(_Mode, "lazy", False)
    x = torch.rand(30, 4, device="hpu")
    run = torch.compile(lambda x: (torch.aminmax(x).max, torch.cdist(x, x)), backend="hpu_backend")
    with FxGraphAnalyzer(reset_dynamo=True) as analyzer:
        highest, distances = run(x)
    (graph,) = analyzer.get_ops_summary()
    names = {name.removeprefix("torch.ops.aten.").split(".")[0] for name in graph}
    assert {"amax", "_cdist_forward"} <= names
    assert names.isdisjoint({"aminmax", "_euclidean_dist"})
    exact = x.cpu().double()
    assert highest.item() == x.cpu().max().item()
    differences = (exact[:, None] - exact[None]).pow(2).sum(-1).sqrt()
    torch.testing.assert_close(distances.cpu().double(), differences, rtol=1e-5, atol=1e-3)


def test_an_operator_that_writes_its_input_is_lowered(monkeypatch):
    monkeypatch.setattr(_Mode, "lazy", False)
    x = torch.arange(8.0, device="hpu")

    def step(x):
        torch.ops.hpu.in_place_interleave_(x)
        return x * 2

    with FxGraphAnalyzer(reset_dynamo=True) as analyzer:
        doubled = torch.compile(step, backend="hpu_backend")(x)
    (graph,) = analyzer.get_ops_summary()
    assert graph["torch.ops.hpu.in_place_interleave.default"].graph_count == 1
    assert x.tolist() == [0] * 4 + [1] * 4
    assert doubled.tolist() == [0] * 4 + [2] * 4


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("counts", [False, True])
def test_what_unique_is_not_asked_for_is_none(inverse, counts):
    x = torch.tensor([3, 1, 3], device="hpu")
    values, places, numbers = torch._unique2(x, True, inverse, counts)
    assert values.tolist() == [1, 3]
    assert places.tolist() == [1, 0, 1] if inverse else places is None
    assert numbers.tolist() == [1, 2] if counts else numbers is None
    assert torch._unique(x, True, False)[1] is None
    found = torch.unique(x, return_inverse=inverse, return_counts=counts)
    assert len(found) == 1 + inverse + counts if inverse or counts else found.tolist() == [1, 3]


def test_pieces_of_a_tensor_are_slices_in_a_compiled_graph(monkeypatch):
    monkeypatch.setattr(_Mode, "lazy", False)

    def pieces(x):
        first, last = x.split(3)
        return first * 2, last * 3, *(part + 1 for part in x.split([1, 4])), x.repeat_interleave(2)

    x = torch.arange(5.0, device="hpu")
    with FxGraphAnalyzer(reset_dynamo=True) as analyzer:
        found = torch.compile(pieces, backend="hpu_backend")(x)
    (graph,) = analyzer.get_ops_summary()
    assert graph["torch.ops.aten.slice.Tensor"].graph_count == 4
    assert not any(count.eager_count for count in graph.values())
    wanted = [[0, 2, 4], [9, 12], [1], [2, 3, 4, 5], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]]
    assert [values.tolist() for values in found] == wanted


@pytest.mark.parametrize("inference", [False, True])
def test_an_instance_norm_is_one_operator_of_a_compiled_graph(inference, monkeypatch):
    monkeypatch.setattr(_Mode, "lazy", False)
    run = torch.compile(torch.nn.functional.instance_norm, backend="hpu_backend")
    with FxGraphAnalyzer(reset_dynamo=True) as analyzer, torch.inference_mode(inference):
        x = torch.rand(2, 3, 4, device="hpu", requires_grad=not inference)
        run(x)
    graph = analyzer.get_ops_summary()[0]
    assert "torch.ops.hpu.instance_norm.default" in graph
