"""Several cards: which are visible, which is current, what they say about themselves."""

import os

import pytest
import torch

from .conftest import emulated_only, run_python


def test_the_current_card():
    assert torch.hpu.is_available()
    assert torch.hpu.current_device() == 0
    with torch.hpu.device(1):
        assert torch.ones(1, device="hpu").device == torch.device("hpu:1")
        with torch.hpu.device_of(torch.ones(1, device="hpu:0")):
            assert torch.hpu.current_device() == 0
        assert torch.hpu.current_device() == 1
    assert torch.hpu.current_device() == 0
    torch.hpu.set_device("hpu:1")
    assert torch.hpu.current_device() == 1
    torch.hpu.set_device(0)


def test_results_stay_on_the_card_of_their_inputs():
    x = torch.ones(3, device="hpu:1")
    assert (x + 1).device == x[:2].device == torch.zeros_like(x).device == x.to(torch.int32).device
    assert x.device.index == 1


def test_a_card_that_does_not_exist():
    count = torch.hpu.device_count()
    for operation in (
        lambda: torch.ones(1, device=f"hpu:{count}"),
        lambda: torch.hpu.set_device(count),
        lambda: torch.hpu.mem_get_info(count),
        lambda: torch.hpu.get_device_name(count),
        lambda: torch.hpu.Stream(device=count),
    ):
        with pytest.raises((RuntimeError, IndexError, ValueError), match=f"hpu:{count}"):
            operation()
    with pytest.raises(ValueError, match="expected an hpu device"):
        torch.hpu.synchronize("cpu")


def test_every_card_reaches_every_other():
    assert torch.hpu.can_device_access_peer(0, "hpu:1")
    with pytest.raises(ValueError, match="hpu:1 twice"):
        torch.hpu.can_device_access_peer(1, torch.device("hpu", 1))
    assert torch.hpu.get_arch_list() == [torch.hpu.get_device_name()]
    assert torch.hpu.get_gencode_flags() == ""


@emulated_only
def test_the_environment_chooses_cards_and_generation():
    code = (
        "import gaudi_emulator, torch; gaudi_emulator.activate(); gaudi_emulator.activate()\n"
        "p = torch.hpu.get_device_properties(1)\n"
        "print(torch.hpu.device_count(), p.name, p.module, p.total_memory >> 20)"
    )
    done = run_python(
        code,
        GAUDI_EMULATOR_DEVICE="GAUDI2",
        GAUDI_EMULATOR_CARDS="4",
        GAUDI_EMULATOR_MEMORY="24GiB",
        HABANA_VISIBLE_MODULES="1,3",
    )
    assert done.stdout.split() == ["2", "GAUDI2", "3", str(24 << 10)], done.stderr


@emulated_only
@pytest.mark.parametrize(
    ("name", "host_gib", "card_gib"),
    [("GAUDI2", 512, 96), ("GAUDI3", 512, 128), ("GAUDI2", 64, 32), ("GAUDI3", 24, 12)],
)
def test_a_card_has_its_own_memory_where_the_host_can_hold_it(
    monkeypatch, name, host_gib, card_gib
):
    """Else half of the host's, so that what runs beside the emulator keeps the other half."""
    from gaudi_emulator import config

    monkeypatch.setattr(config, "host_memory_bytes", lambda: host_gib << 30)
    assert config.read({"GAUDI_EMULATOR_DEVICE": name}).memory_bytes == card_gib << 30


@emulated_only
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"GAUDI_EMULATOR_DEVICE": "GAUDI9"}, "GAUDI_EMULATOR_DEVICE='GAUDI9'.*GAUDI2, GAUDI3"),
        ({"GAUDI_EMULATOR_CARDS": "0"}, "GAUDI_EMULATOR_CARDS=0: expected 1 to 64"),
        ({"GAUDI_EMULATOR_CARDS": "two"}, "expected an integer"),
        ({"GAUDI_EMULATOR_MEMORY": "lots"}, "GAUDI_EMULATOR_MEMORY='lots'.*2GiB"),
        ({"GAUDI_EMULATOR_MEMORY": "12"}, "at least|between 1 MiB"),
        ({"GAUDI_EMULATOR_THREADS": "0"}, "GAUDI_EMULATOR_THREADS=0: expected 1 to 1024"),
        ({"GAUDI_EMULATOR_POISON": "maybe"}, "GAUDI_EMULATOR_POISON='maybe': expected 0 or 1"),
        ({"HABANA_VISIBLE_MODULES": "0,8"}, "module 8 does not exist"),
        ({"HABANA_VISIBLE_MODULES": "1,1"}, "named twice"),
        ({"HABANA_VISIBLE_DEVICES": "a"}, 'expected "all" or numbers'),
    ],
)
def test_bad_configuration_is_refused(environment, message):
    from gaudi_emulator import config

    with pytest.raises(ValueError, match=message):
        config.read(environment)


@emulated_only
def test_configuration_defaults_and_sizes():
    from gaudi_emulator import config

    default = config.read({})
    assert (default.device_name, default.modules, default.poison) == (
        "GAUDI3",
        tuple(range(8)),
        False,
    )
    assert default.memory_bytes == min(128 << 30, config.host_memory_bytes() // 2)
    assert config.read({"GAUDI_EMULATOR_MEMORY": "1.5 GiB"}).memory_bytes == 3 << 29
    assert config.read({"HABANA_VISIBLE_DEVICES": "all"}).modules == tuple(range(8))
    both = {"HABANA_VISIBLE_DEVICES": "2,3", "HABANA_VISIBLE_MODULES": "3,4"}
    assert config.read(both).modules == (3,)


@emulated_only
def test_processes_started_from_here_use_the_threads_and_sleep_while_they_wait():
    child = (
        "import gaudi_emulator, torch; gaudi_emulator.activate(); print(torch.get_num_threads())"
    )
    code = f"""
import os, subprocess, sys
os.environ.pop("OMP_NUM_THREADS", None), os.environ.pop("OMP_WAIT_POLICY", None)
import torch, gaudi_emulator
gaudi_emulator.activate()
print(torch.get_num_threads(), os.environ["OMP_WAIT_POLICY"], flush=True)
subprocess.run([sys.executable, "-c", {child!r}], check=True)
"""
    done = run_python(code, GAUDI_EMULATOR_THREADS="2")
    # PyTorch takes no more threads than there are cores.
    threads = str(min(2, len(os.sched_getaffinity(0))))
    assert done.stdout.split() == ["1", "passive", threads], done.stderr


@emulated_only
def test_the_users_number_of_threads_is_kept():
    code = (
        "import torch, gaudi_emulator, os; gaudi_emulator.activate();"
        "print(torch.get_num_threads(), *map(os.getenv, ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY')))"
    )
    done = run_python(code, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="active")
    assert done.stdout.split() == ["2", "2", "active"], done.stderr


@emulated_only
def test_the_devices_own_kernels_use_the_threads():
    # Nothing before the product is large enough to start PyTorch's threads.
    code = """
import os, torch, gaudi_emulator
gaudi_emulator.activate()
x = torch.empty(16, 2048, dtype=torch.bfloat16, device="hpu")
weight = torch.empty(256, 2048, dtype=torch.bfloat16, device="hpu")
before = len(os.listdir("/proc/self/task"))
torch.nn.functional.linear(x, weight)
print(len(os.listdir("/proc/self/task")) - before)
"""
    two = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive", "GAUDI_EMULATOR_POISON": "0"}
    assert run_python(code, **two).stdout.split() == ["1"]


@emulated_only
def test_a_fork_cannot_use_the_device():
    code = (
        "import os, sys, gaudi_emulator, torch; gaudi_emulator.activate()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try: torch.hpu.synchronize()\n"
        "    except RuntimeError as e: print(e, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)"
    )
    assert "spawn" in run_python(code).stdout
