"""A graph whose input the program has freed refuses to run, and names the tensor."""

import pytest
import torch
from gaudi_emulator.graph import Graph

from .conftest import emulated_only, run_python

pytestmark = emulated_only


def captured(function, *inputs):
    graph = Graph()
    with torch.no_grad():
        graph.capture_begin()
        result = function(*inputs)
        graph.capture_end()
    return graph, result


def test_a_freed_input_is_caught_and_named():
    x, weight = torch.ones(2, 3, device="hpu"), torch.ones(4, 3, device="hpu")
    graph, _y = captured(lambda x, w: torch.relu(x + 1) @ w.t(), x, weight)
    graph.replay()
    del weight
    with pytest.raises(RuntimeError, match=r"Float\[3, 4\].*mm.*freed after the capture") as error:
        graph.replay()
    assert "GAUDI_EMULATOR_CHECK_FREED" in str(error.value)


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x + 1,
        lambda x: x[1:].clone(),
        lambda x: torch.cat([x, x]),
        lambda x: x.add_(1),
        lambda x: x.view(2, 2).t().contiguous(),
    ],
)
def test_however_it_is_used(use):
    x = torch.ones(4, device="hpu")
    graph, y = captured(use, x)
    graph.replay()
    del x, y
    with pytest.raises(RuntimeError, match="freed after the capture"):
        graph.replay()


def test_a_view_of_the_input_keeps_it():
    x = torch.ones(8, device="hpu")
    graph, y = captured(lambda x: x * 2, x)
    view = x[4:]
    del x
    view.fill_(5)
    graph.replay()
    assert y.tolist() == [2.0] * 4 + [10.0] * 4


def test_what_the_graph_made_may_be_freed():
    x = torch.ones(4, device="hpu")

    def work():
        table = torch.empty(4, device="hpu")
        table.copy_(x)
        parts = torch.split_copy(table * torch.arange(4, device="hpu"), 2)
        out = torch.zeros(2, device="hpu")
        return torch.add(parts[0], parts[1], out=out), parts

    graph, (y, parts) = captured(work)
    del parts
    graph.replay()
    assert y.tolist() == [2.0, 4.0]
    kept = y.clone()
    del y
    graph.replay()
    assert kept.tolist() == [2.0, 4.0]


def test_graphs_that_feed_each_other_keep_what_passes_between_them():
    x = torch.ones(4, device="hpu")
    first, middle = captured(lambda x: x + 1, x)
    second, y = captured(lambda x: x * 3, middle)
    del middle
    x.fill_(2)
    first.replay()
    second.replay()
    assert y.tolist() == [9.0] * 4


def test_the_check_can_be_switched_off():
    code = """
import gaudi_emulator, torch
from gaudi_emulator.graph import Graph
gaudi_emulator.activate()
x, graph = torch.ones(4, device='hpu'), Graph()
graph.capture_begin()
y = x + 1
graph.capture_end()
del x
graph.replay()
print(y.tolist())
"""
    done = run_python(code, GAUDI_EMULATOR_CHECK_FREED="0")
    assert done.stdout.strip() == "[2.0, 2.0, 2.0, 2.0]", done.stderr
