"""Memory that outlives the block which allocated it is found, with the code that allocated it."""

import threading

import gaudi_emulator
import torch

from .conftest import emulated_only, run_python

pytestmark = emulated_only


def keeps(where, size):
    where.append(torch.ones(size, device="hpu"))


def test_a_seeded_leak_is_caught_with_its_place():
    cache = []
    with gaudi_emulator.leaks() as leaked:
        for size in (3, 5):
            temporary = torch.ones(size, device="hpu") * 2
            keeps(cache, size)
        del temporary
    assert [(a.card, a.bytes) for a in leaked.allocations] == [(0, 12), (0, 20)]
    assert leaked.bytes == 32
    inner, outer = leaked.allocations[0].stack[:2]
    assert inner.split("/")[-1] == f"test_leaks.py:{keeps.__code__.co_firstlineno + 1} keeps"
    assert outer.endswith("test_a_seeded_leak_is_caught_with_its_place")
    assert str(leaked).startswith("2 allocation(s) with 32 bytes are still held:\n  20 bytes on")


def test_nothing_is_found_where_nothing_is_kept():
    kept = torch.ones(4, device="hpu")
    with gaudi_emulator.leaks() as leaked:
        kept.add_(1)
        cycle = [torch.ones(100, device="hpu")]
        cycle.append(cycle)
        del cycle
        (kept @ kept).item()
    assert not leaked, leaked
    assert str(leaked) == "nothing leaked"


def test_results_that_a_kernel_allocates_and_graph_workspaces_count():
    x = torch.ones(1000, device="hpu")
    graph = gaudi_emulator._C.Graph()
    with gaudi_emulator.leaks() as leaked:
        graph.capture_begin()
        y = (x + 1) * 2
        graph.capture_end()
    assert sorted(a.bytes for a in leaked.allocations) == [4000, graph.workspace_bytes]
    del y
    graph.reset()


def test_blocks_nest_and_see_other_threads():
    with gaudi_emulator.leaks() as outer:
        first = torch.ones(2, device="hpu")
        with gaudi_emulator.leaks() as inner:
            kept = []
            thread = threading.Thread(target=keeps, args=(kept, 7))
            thread.start()
            thread.join()
        second = torch.ones(3, device="hpu:1")
    assert [a.bytes for a in inner.allocations] == [28]
    assert [(a.card, a.bytes) for a in outer.allocations] == [(0, 8), (0, 28), (1, 12)]
    del first, second


def test_the_number_of_frames_is_a_setting():
    code = """
import gaudi_emulator, torch
gaudi_emulator.activate()
def a(): return b()
def b(): return c()
def c(): return torch.ones(1, device='hpu')
with gaudi_emulator.leaks() as leaked: x = a()
print(*[frame.split()[-1] for frame in leaked.allocations[0].stack])
"""
    assert run_python(code, GAUDI_EMULATOR_LEAK_FRAMES="2").stdout.split() == ["c", "b"]
