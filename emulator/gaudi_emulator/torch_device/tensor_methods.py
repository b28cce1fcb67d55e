"""`.hpu()` on tensors and modules, and seeding with the host, as other devices have them."""

from __future__ import annotations

from typing import Any

import torch

from . import random
from .devices import card_index


def _tensor_hpu(
    self: torch.Tensor,
    device: Any = None,
    non_blocking: bool = False,
    memory_format: torch.memory_format = torch.preserve_format,
) -> torch.Tensor:
    """Return a copy of this tensor on a card, or the tensor itself if it is there already."""
    target = torch.device("hpu", card_index(device))
    return self.to(target, non_blocking=non_blocking, memory_format=memory_format)


def _module_hpu(self: torch.nn.Module, device: Any = None) -> torch.nn.Module:
    """Move all parameters and buffers to a card."""
    return self._apply(lambda t: t.hpu(device))


def install() -> None:
    """Attach the methods; let `torch.manual_seed` and `torch.seed` seed the cards, too."""
    torch.Tensor.hpu = _tensor_hpu
    torch.Tensor.is_hpu = property(lambda self: self.device.type == "hpu")
    torch.nn.Module.hpu = _module_hpu

    host_manual_seed = torch.manual_seed

    def manual_seed(seed: int) -> torch.Generator:
        """Seed the host and every card."""
        generator = host_manual_seed(seed)
        random.manual_seed_all(generator.initial_seed())
        return generator

    manual_seed.__doc__ = host_manual_seed.__doc__
    torch.manual_seed = manual_seed
    torch.random.manual_seed = manual_seed

    host_seed = torch.seed

    def seed() -> int:
        """Seed the host from the system's entropy, and every card with the same seed."""
        value = host_seed()
        random.manual_seed_all(value)
        return value

    torch.seed = seed
    torch.random.seed = seed
