"""What kind of card is it, and where does a tensor lie: ``_get_device_type``, ``_data_ptr``.

Names and values: python_packages/habana_frameworks/torch/utils/experimental of
HabanaAI/gaudi-pytorch-bridge and Synapse's ``synDeviceType``.
"""

import enum
import functools

import torch

from habana_frameworks.torch._missing import refuse

__all__ = ["_data_ptr", "_get_device_type", "synDeviceType"]


class synDeviceType(enum.IntEnum):
    """Synapse's device types, as far as PyTorch programs compare with them."""

    synDeviceTypeInvalid = 0
    synDeviceGaudi = 1
    synDeviceGaudi2 = 4
    synDeviceGaudi3 = 5


_BY_NAME = {
    "GAUDI": synDeviceType.synDeviceGaudi,
    "GAUDI2": synDeviceType.synDeviceGaudi2,
    "GAUDI3": synDeviceType.synDeviceGaudi3,
}


@functools.cache
def _get_device_type() -> synDeviceType:
    """The type of the cards of this host."""
    return _BY_NAME[torch.hpu.get_device_name().upper()]


def _data_ptr(tensor: torch.Tensor) -> int:
    """Address of the first element of an ``hpu`` tensor on the card; 0 for any other tensor."""
    return tensor.data_ptr() if tensor.device.type == "hpu" else 0


__getattr__ = refuse(__name__)
