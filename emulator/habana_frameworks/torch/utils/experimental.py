"""What kind of card is it, and where does a tensor lie: ``_get_device_type``, ``_data_ptr``.

Names and values: python_packages/habana_frameworks/torch/utils/experimental of
HabanaAI/gaudi-pytorch-bridge and Synapse's ``synDeviceType``.
"""

import enum
import functools

import torch

from habana_frameworks.torch import _device, hpu
from habana_frameworks.torch._missing import refuse

__all__ = [
    "_data_ptr",
    "_get_device_type",
    "_set_is_dynamic_quantization",
    "_set_scale_attributes",
    "hpu",
    "synDeviceType",
]


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
    return _BY_NAME[_device.device_name()]


def _data_ptr(tensor: torch.Tensor) -> int:
    """Address of the first element of an ``hpu`` tensor on the card; 0 for any other tensor.

    It never calls ``Tensor.data_ptr``: programs put a function in its place that calls this one.
    """
    return _device.data_ptr(tensor)


class _Quantization:
    """What a quantising program told the card's graph compiler.

    The compiler uses it to keep recipes when scales change. Recipes here do not depend on the
    values of scales, so there is nothing to do but to check and to keep them.
    """

    dynamic = False
    hardware_aligned = False
    scale_method = 0


def _set_is_dynamic_quantization(dynamic: bool) -> None:
    """Say whether scales are computed from each input (True) or come from a calibration."""
    _Quantization.dynamic = bool(dynamic)


def _set_scale_attributes(hardware_aligned: bool, scale_method: int) -> None:
    """Say how scales were chosen, for programs that change them without a new recipe.

    Args:
        hardware_aligned: scales are powers of two that the card applies for free.
        scale_method: number of the method, counted from 1.
    """
    if scale_method < 1:
        raise ValueError(f"_set_scale_attributes: scale_method counts from 1, got {scale_method}")
    _Quantization.hardware_aligned = bool(hardware_aligned)
    _Quantization.scale_method = scale_method


__getattr__ = refuse(__name__)
