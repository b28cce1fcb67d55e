"""What the bridge needs of the device below it; the only module here that names its internals."""

import threading

import gaudi_emulator._C as _C  # noqa: PLR0402 (mypy finds the stub of an extension only so)
import torch
from gaudi_emulator import (
    activate,
    counters,
    launch_region,
    lazy_graphs,
    recent_compilations,
    recipes,
    torch_device,
)
from gaudi_emulator.collective_cost import CollectiveCost
from gaudi_emulator.graph import Graph as DeviceGraph

__all__ = [
    "CollectiveCost",
    "CollectiveWork",
    "DeviceGraph",
    "Region",
    "close_transfers",
    "counters",
    "data_ptr",
    "device_functions",
    "device_name",
    "empty_cache",
    "enter_region",
    "exit_region",
    "fault_point",
    "forbid_host_reads",
    "host_view",
    "in_region",
    "is_capturing",
    "launch_region",
    "lazy_graphs",
    "note_compilation",
    "place_on_host",
    "recent_compilations",
    "recipes",
    "set_compile_only",
    "set_native_int64",
    "synchronize",
    "when_transfers_end",
]

CollectiveWork = _C.CollectiveWork
Region = _C.Region
close_transfers = _C.close_transfers
device_functions = torch_device
# As they are now: a program may put others in their place in `torch.hpu`.
synchronize = torch_device.synchronize
empty_cache = torch_device.empty_cache
fault_point = _C.fault_point
forbid_host_reads = _C.forbid_host_reads
host_view = _C.host_view
is_capturing = _C.is_capturing
note_compilation = _C.note_compilation
place_on_host = _C.place_on_host
set_compile_only = _C.set_compile_only
set_native_int64 = _C.set_native_int64
when_transfers_end = _C.when_transfers_end


class _Regions(threading.local):
    """How deep this thread is in compiled regions."""

    depth = 0


_regions = _Regions()


def data_ptr(tensor: torch.Tensor) -> int:
    """Address of the first element of an hpu tensor; 0 for any other tensor."""
    return _C.data_ptr(tensor)


def device_name() -> str:
    """What the cards are, also where a program has replaced `torch.hpu.get_device_name`."""
    return activate().device_name


def enter_region() -> None:
    """Begin a compiled region: one launch, whatever operators it consists of. Regions nest."""
    _C.launch_region_enter()
    _regions.depth += 1


def exit_region() -> None:
    """End the innermost compiled region."""
    _regions.depth -= 1
    _C.launch_region_exit()


def in_region() -> bool:
    """Whether this thread runs operators of a compiled graph."""
    return _regions.depth > 0
