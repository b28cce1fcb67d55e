"""The ``hccl`` backend of ``torch.distributed`` between processes, two, four and eight."""

import socket

import pytest
import torch
import torch.distributed as dist
from habana_frameworks.torch._device import DeviceGraph
from habana_frameworks.torch.distributed.hccl import initialize_distributed_hpu

from .conftest import emulated_only
from .hccl_cases import run_case


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("size", [2, 4])
def test_collectives(size):
    run_case("everything", size, free_port())


@pytest.mark.slow
def test_collectives_of_eight_cards():
    run_case("everything", 8, free_port(), timeout_s=180)


def test_a_backend_per_device_and_collectives_inside_a_graph():
    run_case(
        "host_device_and_graph",
        2,
        free_port(),
        backend="cpu:gloo,hpu:hccl",
        one_card_each=True,
        PT_HPU_LAZY_MODE="1",
        PT_HPU_ENABLE_LAZY_COLLECTIVES="true",
    )


@pytest.fixture
def group_of_one():
    """A process group in this process."""
    dist.init_process_group("hccl", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_graph_needs_the_flag_for_collectives(group_of_one):
    x = torch.ones(3, device="hpu")
    graph = DeviceGraph()
    graph.capture_begin()
    with pytest.raises(RuntimeError, match="PT_HPU_ENABLE_LAZY_COLLECTIVES=true"):
        dist.all_reduce(x)
    graph.reset()


def test_a_group_of_one_by_default_store(group_of_one):
    x = torch.arange(4.0, device="hpu").to(torch.float8_e4m3fn)
    dist.all_reduce(x, op=dist.ReduceOp.AVG)
    assert x.float().tolist() == [0, 1, 2, 3]
    dist.barrier()


@emulated_only
def test_collectives_have_costs_alone_and_in_graphs(group_of_one, monkeypatch):
    import gaudi_emulator
    from gaudi_emulator.observation import cost_of_graph
    from habana_frameworks.torch.internal import bridge_config

    x = torch.ones(6, device="hpu")
    with gaudi_emulator.measure() as work:
        dist.all_reduce(x)
    assert work.launches == {"collective": 1}
    assert (work.cost.bytes, work.cost.link_bytes) == (24, 0), "there is nobody to send to"
    graph = DeviceGraph()
    # The flag can be set before the import only; what it does is tested in processes of their own.
    monkeypatch.setattr(
        bridge_config, "get_pt_hpu_enable_lazy_collectives", lambda: True, raising=False
    )
    graph.capture_begin()
    dist.all_reduce(x)
    graph.capture_end()
    assert cost_of_graph(graph) == work.cost


def test_the_backend_is_registered_for_hpu():
    assert dist.is_backend_available("hccl")
    assert dist.Backend.backend_capability["hccl"] == ["hpu"]


def test_every_collective_of_torch_has_a_kernel():
    """Whatever collectives the installed PyTorch has: those are the operators with a group."""
    collectives = [
        schema.name
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("c10d::")
        and any("ProcessGroup" in str(argument.type) for argument in schema.arguments)
    ]
    assert len(collectives) >= 20
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    assert [name for name in collectives if not has_kernel(name, "HPU")] == []


def test_ranks_from_the_launcher(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert initialize_distributed_hpu() == (1, 0, 0)
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("RANK", "9")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert initialize_distributed_hpu() == (16, 9, 1)
    assert initialize_distributed_hpu(rank=3) == (16, 3, 1)
