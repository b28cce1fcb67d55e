"""Free memory in pieces: what fits in total and nowhere in one piece is refused, and said to be."""

import random

import torch

from .conftest import emulated_only, run_python

pytestmark = emulated_only

CHECKERBOARD = """
import gaudi_emulator, torch
gaudi_emulator.activate()
MIB = 1 << 20
tensors = [torch.empty(4 * MIB, dtype=torch.uint8, device='hpu') for _ in range(16)]
assert torch.hpu.mem_get_info()[0] == 0
del tensors[::2]
print(gaudi_emulator.memory_layout())
try:
    torch.empty(6 * MIB, dtype=torch.uint8, device='hpu')
    print('fits')
except torch.OutOfMemoryError as error:
    print(error)
small = torch.empty(4 * MIB, dtype=torch.uint8, device='hpu')
print(gaudi_emulator.memory_layout())
del small, tensors
print(gaudi_emulator.memory_layout(), torch.hpu.memory_stats()['NumOOM'])
"""
MIB = 1 << 20


def test_an_allocation_that_fits_in_no_piece_is_refused():
    done = run_python(CHECKERBOARD, GAUDI_EMULATOR_MEMORY="64MiB", GAUDI_EMULATOR_FRAGMENTATION="1")
    before, error, after, end = done.stdout.splitlines()
    assert "free_bytes=33554432, largest_free_bytes=4194304, free_pieces=8" in before, done.stderr
    assert "Tried to allocate 6.00 MiB on hpu:0, where 32.00 MiB are free" in error
    assert "in 8 pieces of at most 4.00 MiB: the memory is fragmented" in error
    assert "GAUDI_EMULATOR_FRAGMENTATION" in error
    assert "free_bytes=29360128" in after
    assert "fragmented_errors=1" in after
    assert "free_bytes=67108864, largest_free_bytes=67108864, free_pieces=1" in end
    assert end.endswith(" 1")


def test_without_it_only_the_sum_counts():
    done = run_python(CHECKERBOARD, GAUDI_EMULATOR_MEMORY="64MiB", GAUDI_EMULATOR_FRAGMENTATION="0")
    assert done.stdout.splitlines()[1] == "fits", done.stderr


def test_pieces_join_again_in_whatever_order_they_are_freed():
    import gaudi_emulator

    before = gaudi_emulator.memory_layout(7)
    assert before.free_pieces == 1
    order = random.Random(3)
    held = []
    for _ in range(2000):
        if held and order.random() < 0.5:
            held.pop(order.randrange(len(held)))
        else:
            size = order.choice([1, 100, 4096, MIB - 1, MIB, 3 * MIB])
            held.append(torch.empty(size, dtype=torch.uint8, device="hpu:7"))
        layout = gaudi_emulator.memory_layout(7)
        assert 0 <= layout.fragmentation < 1
        assert layout.largest_free_bytes <= before.free_bytes - sum(t.nbytes for t in held)
    assert gaudi_emulator.memory_layout(7).free_pieces > 1
    order.shuffle(held)
    while held:
        held.pop()
    assert gaudi_emulator.memory_layout(7) == before


def test_a_refused_allocation_changes_nothing():
    code = """
import gaudi_emulator, torch
gaudi_emulator.activate()
whole = torch.empty((1 << 20) - 128, dtype=torch.uint8, device='hpu')
before = gaudi_emulator.memory_layout(), torch.hpu.memory_allocated()
try:
    torch.empty(129, dtype=torch.uint8, device='hpu')
except torch.OutOfMemoryError:
    print('full', (gaudi_emulator.memory_layout(), torch.hpu.memory_allocated()) == before)
rest = torch.empty(128, dtype=torch.uint8, device='hpu')
print(gaudi_emulator.memory_layout().free_pieces)
"""
    done = run_python(code, GAUDI_EMULATOR_MEMORY="1MiB", GAUDI_EMULATOR_FRAGMENTATION="1")
    assert done.stdout.split() == ["full", "True", "0"], done.stderr
