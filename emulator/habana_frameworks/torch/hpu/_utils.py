"""Which card is meant: a function that libraries ask for under the name of the bridge's module."""

from typing import Any

import torch

from habana_frameworks.torch._device import device_functions as _below
from habana_frameworks.torch._missing import refuse

__all__: list[str] = []


def _get_device_index(device: Any, optional: bool = False, allow_cpu: bool = False) -> int:
    """Index of a card.

    Args:
        device: a number, which is the answer, or what ``torch.device`` takes, or None.
        optional: whether a device without a number, or None, means the current card.
        allow_cpu: whether the host is a device, too; its number is -1.

    Raises:
        ValueError: another kind of device, or none where one is needed.
    """
    if isinstance(device, int):
        return device
    if device is not None:
        device = torch.device(device)
        if allow_cpu and device.type == "cpu":
            return -1
        if device.type != "hpu":
            raise ValueError(f"expected an hpu device, got {device}")
        if device.index is not None:
            return device.index
    if not optional:
        raise ValueError(f"expected an hpu device with an index, got {device!r}")
    return _below.current_device()


__getattr__ = refuse(__name__)
