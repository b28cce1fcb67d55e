"""Accounting of a card's memory, its limit, and fresh memory nobody wrote."""

import gc

import pytest
import torch

from .conftest import emulated_only, run_python

MIB = 1 << 20


def test_memory_in_use_follows_the_tensors():
    gc.collect()
    before = torch.hpu.memory_allocated()
    a = torch.empty(MIB, dtype=torch.uint8, device="hpu")
    b = a + 1  # a result adopted from a kernel counts too
    assert torch.hpu.memory_allocated() - before == 2 * MIB
    view = b[: MIB // 2]
    del b
    assert torch.hpu.memory_allocated() - before == 2 * MIB
    del a, view
    assert torch.hpu.memory_allocated() == before


def test_results_resized_by_a_kernel_are_accounted():
    before = torch.hpu.memory_allocated()
    out = torch.empty(0, device="hpu")
    torch.ones(MIB, device="hpu", out=out)
    assert torch.hpu.memory_allocated() - before == 4 * MIB
    out.resize_(2 * MIB)
    assert torch.hpu.memory_allocated() - before == 8 * MIB
    del out
    assert torch.hpu.memory_allocated() == before


def test_free_and_total():
    x = torch.empty(MIB, dtype=torch.uint8, device="hpu")
    free, total = torch.hpu.mem_get_info()
    assert total - free == torch.hpu.memory_allocated() >= MIB
    assert total == torch.hpu.get_device_properties().total_memory
    stats = torch.hpu.memory_stats()
    assert stats["Limit"] == total
    assert stats["InUse"] == total - free
    assert torch.accelerator.memory_allocated() == stats["InUse"]
    del x


def test_counts_begin_anew_when_they_are_reset():
    kept = torch.empty(MIB, dtype=torch.uint8, device="hpu")
    active = torch.hpu.memory_stats()["ActiveAllocs"]
    torch.hpu.reset_accumulated_memory_stats()
    torch.empty(MIB, dtype=torch.uint8, device="hpu")
    stats = torch.hpu.memory_stats()
    assert (stats["NumAllocs"], stats["NumFrees"], stats["ActiveAllocs"]) == (1, 1, active)
    assert stats["TotalAlloc"] == MIB
    assert torch.hpu.memory_usage() == torch.hpu.memory_allocated() >= kept.numel()


def test_the_peak_is_kept_until_it_is_reset():
    torch.hpu.reset_peak_memory_stats()
    start = torch.hpu.max_memory_allocated()
    assert start == torch.hpu.memory_allocated()
    x = torch.empty(4 * MIB, dtype=torch.uint8, device="hpu")
    del x
    assert torch.hpu.max_memory_allocated() == start + 4 * MIB
    torch.hpu.reset_peak_memory_stats()
    assert torch.hpu.max_memory_allocated() == start


def test_cards_are_accounted_apart():
    before = torch.hpu.memory_allocated(0)
    x = torch.empty(MIB, dtype=torch.uint8, device="hpu:1")
    assert torch.hpu.memory_allocated(0) == before
    assert torch.hpu.memory_allocated(1) >= x.nbytes


@emulated_only
def test_out_of_memory_is_an_error_of_the_device_and_changes_nothing():
    free, total = torch.hpu.mem_get_info()
    with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate .* GiB on hpu:0.* in use"):
        torch.empty(total + 1, dtype=torch.uint8, device="hpu")
    assert torch.hpu.mem_get_info() == (free, total)
    assert torch.hpu.memory_stats()["NumOOM"] >= 1


@emulated_only
def test_a_small_card_is_full_early():
    code = (
        "import gaudi_emulator, torch; gaudi_emulator.activate()\n"
        "x = torch.ones(40 << 20, dtype=torch.uint8, device='hpu')\n"
        "try: x + 1\n"
        "except torch.OutOfMemoryError as e: print('full:', e)\n"
        "print(torch.hpu.mem_get_info())"
    )
    done = run_python(code, GAUDI_EMULATOR_MEMORY="64MiB")
    assert "full: HPU out of memory. Tried to allocate 40.00 MiB on hpu:0" in done.stdout, done
    assert f"({24 << 20}, {64 << 20})" in done.stdout


@emulated_only
def test_large_zeroed_tensors_cost_the_host_nothing_until_touched():
    before = _resident_bytes()
    x = torch.zeros(1 << 30, dtype=torch.uint8, device="hpu")
    assert _resident_bytes() - before < 64 * MIB
    assert x[-3:].tolist() == [0, 0, 0]


def _resident_bytes() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


@emulated_only
def test_poisoned_memory_is_noticed():
    code = (
        "import gaudi_emulator, torch; gaudi_emulator.activate()\n"
        "for d in (torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2):\n"
        "    assert torch.empty(64, dtype=d, device='hpu').float().isnan().all(), d\n"
        "assert (torch.empty(64, dtype=torch.int32, device='hpu') == -1).all()\n"
        "x = torch.ones(4, device='hpu').resize_(4096)\n"
        "assert x[:4].tolist() == [1] * 4 and x[4:].isnan().all()\n"
        "assert (torch.zeros(64, device='hpu') == 0).all()\n"
        "print('poisoned')"
    )
    done = run_python(code, GAUDI_EMULATOR_POISON="1")
    assert done.stdout.strip() == "poisoned", done.stderr
