"""Seeded mistakes, one of each kind, which the device must catch; and one switch.

More about each: test_memory, test_fragmentation, test_freed_inputs, test_graphs, test_leaks; of a
missing synchronisation: test_async_streams.
"""

import gaudi_emulator
import pytest
import torch
from gaudi_emulator.graph import Graph

from .conftest import emulated_only, run_python

pytestmark = emulated_only

UNCHECKED = """
import gaudi_emulator, torch
from gaudi_emulator.graph import Graph
gaudi_emulator.activate()
x, graph = torch.ones(4, device='hpu'), Graph()
graph.capture_begin()
y = x * 2 if (x + 1).sum().item() > 0 else x * 3
z = x.nonzero()
graph.capture_end()
print(len(graph.operators()))
"""


def test_a_read_of_unwritten_memory_shows():
    """A cache of eight rows of which seven are written, and all are read."""
    cache = torch.empty(8, 4, device="hpu")
    for row in range(7):
        cache[row] = float(row)
    assert cache.sum().isnan()
    cache[7] = 7.0
    assert cache.sum().item() == 4 * 28


def test_a_host_read_in_a_graph():
    """The program branches on a value while a graph is captured."""
    x, graph = torch.ones(4, device="hpu"), Graph()
    graph.capture_begin()
    with pytest.raises(RuntimeError, match=r"_local_scalar_dense .item.' into a graph: it reads"):
        x * 2 if x.sum() > 0 else x * 3
    graph.reset()


def test_a_shape_that_depends_on_values_in_a_graph():
    x, graph = torch.ones(4, device="hpu"), Graph()
    graph.capture_begin()
    with pytest.raises(RuntimeError, match="nonzero' into a graph: the shape of its result"):
        x.nonzero()
    graph.reset()


def test_a_leak():
    """A program keeps the result of every step."""
    kept = []

    def step(x):
        kept.append(x * 2)

    x = torch.ones(1024, device="hpu")
    with gaudi_emulator.leaks() as leaked:
        for _ in range(3):
            step(x)
    assert (len(leaked), leaked.bytes) == (3, 3 * 4096)
    assert all(
        "test_detectors.py" in a.stack[0] and " step" in a.stack[0] for a in leaked.allocations
    )
    kept.clear()
    with gaudi_emulator.leaks() as leaked:
        step(x)
        kept.clear()
    assert not leaked, leaked


def test_captures_may_go_unchecked():
    done = run_python(UNCHECKED, GAUDI_EMULATOR_CHECK_CAPTURE="0")
    assert done.stdout.strip() == "4", done.stderr


def test_the_tests_run_with_all_of_them():
    from gaudi_emulator import config

    settings = config.read()
    assert settings.poison
    assert settings.fragmentation
    assert settings.check_freed
    assert settings.check_capture
