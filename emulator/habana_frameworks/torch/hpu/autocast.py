"""Autocast of the device, by the bridge's older names; PyTorch's own state is read and set.

Source: python_packages/habana_frameworks/torch/hpu of HabanaAI/gaudi-pytorch-bridge.
"""

import torch

__all__ = [
    "get_autocast_hpu_dtype",
    "is_autocast_hpu_enabled",
    "set_autocast_hpu_dtype",
    "set_autocast_hpu_enabled",
]


def is_autocast_hpu_enabled() -> bool:
    """Whether autocast is on for ``hpu`` in this thread."""
    return torch.is_autocast_enabled("hpu")


def set_autocast_hpu_enabled(enabled: bool) -> None:
    """Switch autocast for ``hpu``; ``torch.autocast("hpu")`` does so for a block."""
    torch.set_autocast_enabled("hpu", enabled)


def get_autocast_hpu_dtype() -> torch.dtype:
    """The dtype that autocast gives operators which it lowers."""
    return torch.get_autocast_dtype("hpu")


def set_autocast_hpu_dtype(dtype: torch.dtype) -> None:
    """Choose that dtype."""
    torch.set_autocast_dtype("hpu", dtype)
