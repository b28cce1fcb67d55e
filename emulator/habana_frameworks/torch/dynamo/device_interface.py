"""What Dynamo asks about the device while it traces: streams, events, the current card."""

import torch
from torch._dynamo.device_interface import DeviceInterface, register_interface_for_device

from habana_frameworks.torch._device import device_functions as _below

__all__ = ["HpuInterface", "register_device_interface"]


class HpuInterface(DeviceInterface):
    """The functions of ``torch.hpu`` in the form Dynamo wants."""

    device = _below.device
    Event = _below.Event
    Stream = _below.Stream
    current_device = staticmethod(_below.current_device)
    set_device = staticmethod(_below.set_device)
    device_count = staticmethod(_below.device_count)
    is_available = staticmethod(_below.is_available)
    stream = staticmethod(_below.stream)
    current_stream = staticmethod(_below.current_stream)
    set_stream = staticmethod(_below.set_stream)
    synchronize = staticmethod(_below.synchronize)
    get_device_properties = staticmethod(_below.get_device_properties)

    class Worker:
        """The same for compile workers; there are none, compilation is in process."""

        set_device = staticmethod(_below.set_device)
        current_device = staticmethod(_below.current_device)
        get_device_properties = staticmethod(_below.get_device_properties)

    @staticmethod
    def get_compute_capability(device: torch.types.Device = None) -> str:
        """The card's name: Gaudi has no numbered capability."""
        return _below.get_device_capability(device)

    @staticmethod
    def is_bf16_supported(including_emulation: bool = False) -> bool:
        """Every Gaudi computes in bfloat16."""
        return _below.is_bf16_supported()


def register_device_interface() -> None:
    """Let Dynamo find the interface under ``hpu``."""
    register_interface_for_device("hpu", HpuInterface)
