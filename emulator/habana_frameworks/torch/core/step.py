"""``mark_step``: where a lazy graph ends, and what runs then.

Source: core/step_closure.py of HabanaAI/gaudi-pytorch-bridge. Outside the lazy mode the calls have
no effect on a card, and none here.
"""

from collections.abc import Callable, Sequence

from habana_frameworks.torch._device import lazy_graphs, synchronize
from habana_frameworks.torch.utils.internal import is_lazy

__all__ = ["add_step_closure", "iter_mark_step", "mark_step", "marked_steps"]


class _Count:
    steps = 0


_closures: list[tuple[Callable, Sequence]] = []


def marked_steps() -> int:
    """How many lazy graphs ``mark_step`` has ended in this process."""
    return _Count.steps


def mark_step(device_str: str = "", sync: bool = False) -> None:
    """End the graph that the lazy mode has gathered and launch it; then run the step closures.

    While an HPU graph is captured nothing is gathered, and the step is only counted.

    Args:
        device_str: a device; every card is meant without it.
        sync: also wait until the device is idle.
    """
    if not is_lazy():
        return
    lazy_graphs.cut()
    _Count.steps += 1
    if sync:
        synchronize()
    _run_closures()


def iter_mark_step(device_str: str = "") -> None:
    """`mark_step` at the end of an iteration of training."""
    mark_step(device_str)


def add_step_closure(closure: Callable, args: Sequence = ()) -> None:
    """Call ``closure(*args)`` once, after the next `mark_step`; one that raises stops the rest."""
    if is_lazy():
        _closures.append((closure, args))


def _run_closures() -> None:
    due, _closures[:] = list(_closures), []  # a closure may add others, for the step after
    for closure, args in due:
        closure(*args)
