"""Graphs: captured once, run again without Python, refusing what a card cannot record."""

import pytest
import torch
import torch.nn.functional as F

from .conftest import ON_CARD, counted, emulated_only, run_python

if not ON_CARD:
    from gaudi_emulator import _C
    from gaudi_emulator.graph import Graph

pytestmark = emulated_only


@pytest.fixture
def graph():
    g = Graph()
    yield g
    g.reset()


def check_replay(graph, function, make_inputs):
    """Capture on some inputs, replay on others, and compare with running eagerly."""
    torch.manual_seed(0)
    inputs, fresh = make_inputs(), make_inputs()
    with torch.no_grad():
        graph.capture_begin()
        outputs = function(*inputs)
        graph.capture_end()
        for static, new in zip(inputs, fresh, strict=True):
            static.copy_(new)
        before = [o.clone() for o in outputs]
        graph.replay()
        expected = function(*fresh)
    assert any(not torch.equal(b, o) for b, o in zip(before, outputs, strict=True))
    for output, reference in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, reference, rtol=0, atol=0)


def test_a_network(graph):
    layer = torch.nn.Linear(16, 16).hpu()

    def network(x):
        hidden = F.silu(layer(x)).add_(x)
        return (F.layer_norm(hidden, (16,)).softmax(-1),)

    check_replay(graph, network, lambda: [torch.randn(4, 16, device="hpu")])
    assert graph.workspace_bytes > 0


def test_views_casts_several_results_and_lists(graph):
    def function(x):
        left, right = x.chunk(2, -1)
        values, indices = x.topk(3)
        parts = torch.split_copy(x, 2)
        return (
            left * right,
            x[:, :3].t().contiguous() + 1,
            values,
            indices,
            x.to(torch.bfloat16),
            x.sort()[0],
            torch.stack([parts[0], parts[1]]).sum(0),
        )

    check_replay(graph, function, lambda: [torch.randn(4, 8, device="hpu")])


def test_memory_made_inside(graph):
    def function(x, index):
        table = torch.zeros(6, 4, device="hpu")
        table.index_copy_(0, index, x)
        out = torch.empty(6, 4, device="hpu")
        torch.mul(table, torch.arange(4, device="hpu"), out=out)
        filled = torch.full((6, 4), 2.0, device="hpu")
        filled[index] = x
        return out, filled, F.pad(x, (1, 1))

    check_replay(
        graph,
        function,
        lambda: [torch.randn(3, 4, device="hpu"), torch.randperm(6, device="hpu")[:3]],
    )


def test_attention_and_embedding(graph):
    table = torch.randn(32, 16, device="hpu")

    def function(tokens):
        q = F.embedding(tokens, table).view(1, 8, 2, 8).transpose(1, 2)
        return (F.scaled_dot_product_attention(q, q, q, is_causal=True), torch.cat([q, q], -1))

    check_replay(graph, function, lambda: [torch.randint(0, 32, (8,), device="hpu")])


def test_state_is_updated_in_place_by_every_replay(graph):
    cache, step = torch.zeros(4, device="hpu"), torch.ones((), device="hpu")
    graph.capture_begin()
    cache.add_(step)
    graph.capture_end()
    graph.replay()
    step.fill_(10)
    graph.replay()
    assert cache.tolist() == [12.0] * 4


def test_random_numbers_are_drawn_again(graph):
    torch.hpu.manual_seed(5)
    graph.capture_begin()
    noise = torch.rand(8, device="hpu")
    graph.capture_end()
    first = noise.clone()
    graph.replay()
    second = noise.clone()
    torch.hpu.manual_seed(5)
    graph.replay()
    assert torch.equal(noise, first)
    assert not torch.equal(second, first)


def test_host_numbers_are_constants(graph):
    scale, x = torch.tensor(3.0), torch.ones(2, device="hpu")
    graph.capture_begin()
    y = x * scale + torch.tensor(1.0, device="hpu")
    graph.capture_end()
    scale.fill_(100)
    x.fill_(2)
    graph.replay()
    assert y.tolist() == [7.0, 7.0]


def test_results_survive_later_allocations(graph):
    x = torch.full((1024,), 2.0, device="hpu")
    graph.capture_begin()
    y = (x * 2 + 1) * 3
    graph.capture_end()
    others = [torch.zeros(1024, device="hpu") for _ in range(8)]
    graph.replay()
    assert (y == 15).all()
    assert all((o == 0).all() for o in others)


def test_one_replay_is_one_launch_and_one_capture_one_compilation(graph):
    x = torch.ones(4, device="hpu")
    with counted() as capturing:
        graph.capture_begin()
        y = (x + 1) * 2
        graph.capture_end()
    assert capturing.launches == 0
    assert capturing.captured_ops == 2
    assert capturing.compilations == {"graph_capture": 1}
    with counted() as replaying:
        graph.replay()
        graph.replay()
    assert replaying.launches == replaying.graph_launches == 2
    assert replaying.total_compilations == 0
    assert y.tolist() == [4.0] * 4


def test_a_graph_costs_its_peak_until_it_is_reset():
    size = 1 << 20
    x = torch.ones(size, dtype=torch.uint8, device="hpu")
    before = torch.hpu.memory_allocated()
    graph = Graph()
    graph.capture_begin()
    y = x
    for _ in range(10):
        y = y + 1
    graph.capture_end()
    assert torch.hpu.memory_allocated() - before == size + graph.workspace_bytes
    assert size <= graph.workspace_bytes <= 3 * size
    del y
    graph.replay()
    graph.reset()
    assert torch.hpu.memory_allocated() == before


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("_local_scalar_dense", lambda x: x.sum().item()),
        ("_to_copy", lambda x: x.cpu()),
        ("copy_", lambda x: torch.empty(3).copy_(x)),
        ("_to_copy", lambda x: torch.ones(3).to("hpu")),
        ("nonzero", lambda x: x.nonzero()),
        ("index.Tensor", lambda x: x[x > 0]),
        ("masked_select", lambda x: x.masked_select(x > 0)),
        ("unique", lambda x: x.unique()),
        ("equal", lambda x: torch.equal(x, x)),
        ("synchronize", lambda x: torch.hpu.synchronize()),
        ("Event.synchronize", lambda x: torch.hpu.current_stream().record_event().synchronize()),
        ("resize_", lambda x: x.resize_(100)),
        ("host_view", _C.host_view),
        ("dropout", lambda x: torch.native_dropout(x, 0.5, True)),
    ],
)
def test_what_a_graph_cannot_contain_is_named(graph, name, operation):
    x = torch.ones(3, device="hpu")
    graph.capture_begin()
    with pytest.raises(RuntimeError, match=f"cannot capture '.*{name}"):
        operation(x)
    assert _C.is_capturing()
    graph.reset()
    assert not _C.is_capturing()
    operation(x)


def test_misuse_is_refused(graph):
    with pytest.raises(RuntimeError, match="needs a finished capture"):
        graph.replay()
    graph.capture_begin()
    with pytest.raises(RuntimeError, match="already captures"):
        Graph().capture_begin()
    graph.capture_end()
    with pytest.raises(RuntimeError, match="reset"):
        graph.capture_begin()
    with pytest.raises(RuntimeError, match="without capture_begin"):
        graph.capture_end()


def test_recording_takes_no_memory_but_the_graph_does():
    """Tensors of a capture live in the workspace of its graph, which is what counts."""
    code = (
        "import gc, gaudi_emulator, torch; gaudi_emulator.activate()\n"
        "from gaudi_emulator.graph import Graph\n"
        "x = torch.ones(8 << 20, dtype=torch.uint8, device='hpu')\n"
        "def chain():\n"
        "    y = x\n"
        "    for _ in range(20): y = y + 1\n"
        "def all_at_once():\n"
        "    return sum([x + number for number in range(20)])\n"
        "def record(function):\n"
        "    graph = Graph()\n"
        "    graph.capture_begin()\n"
        "    function()\n"
        "    graph.capture_end()\n"
        "    return graph\n"
        "graph = record(chain)\n"
        "print(torch.hpu.max_memory_allocated() <= 32 << 20)\n"
        "graph.reset()\n"
        "before = torch.hpu.memory_allocated()\n"
        "try: record(all_at_once)\n"
        "except torch.OutOfMemoryError as error: print('full:', error)\n"
        "gc.collect()\n"
        "print(torch.hpu.memory_allocated() == before)\n"
    )
    done = run_python(code, GAUDI_EMULATOR_MEMORY="64MiB")
    small, full, given_back = done.stdout.splitlines() or [done.stderr] * 3
    assert small == given_back == "True", done
    assert "full: HPU out of memory. Tried to allocate" in full
