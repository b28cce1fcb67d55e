"""``mark_step``: where a lazy graph ends."""

import torch

from habana_frameworks.torch.utils.internal import is_lazy

__all__ = ["mark_step", "marked_steps"]


class _Count:
    steps = 0


def marked_steps() -> int:
    """How many lazy graphs ``mark_step`` has ended in this process."""
    return _Count.steps


def mark_step(device_str: str = "", sync: bool = False) -> None:
    """End the graph that the lazy mode has gathered and launch it.

    The emulated lazy mode runs every operator at once, so there is nothing left to launch: the
    step is counted. Outside the lazy mode the call has no effect on the card, and none here.

    Args:
        device_str: a device; every card is meant without it.
        sync: also wait until the device is idle.
    """
    if not is_lazy():
        return
    _Count.steps += 1
    if sync:
        torch.hpu.synchronize()
