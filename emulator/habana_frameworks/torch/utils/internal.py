"""The execution mode of the bridge."""

import os

from habana_frameworks.torch._missing import refuse

__all__ = ["is_lazy"]

_TRUE_UNLESS = "0"


class _Mode:
    """Read once, like the bridge does: a later change of the variable has no effect."""

    lazy: bool | None = None


def is_lazy() -> bool:
    """Whether the lazy mode is on: ``PT_HPU_LAZY_MODE`` is set to anything but ``0``.

    The default is 0 (eager and ``torch.compile``), as in the newer public commit of the bridge
    (scripts/env_flags.yaml).
    """
    if _Mode.lazy is None:
        _Mode.lazy = os.environ.get("PT_HPU_LAZY_MODE", _TRUE_UNLESS) != _TRUE_UNLESS
    return _Mode.lazy


__getattr__ = refuse(__name__)
