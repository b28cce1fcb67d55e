"""Which kernel does ``FusedSDPA`` use when the caller does not say?

Names: python_packages/habana_frameworks/torch/hpu/__init__.py of HabanaAI/gaudi-pytorch-bridge.
"""

import contextlib
from collections.abc import Iterator

__all__ = ["enable_recompute_sdp", "recompute_sdp_enabled", "sdp_kernel"]


class _State:
    recompute = False


def enable_recompute_sdp(enabled: bool) -> None:
    """Choose the kernel that recomputes instead of holding the matrix of scores."""
    _State.recompute = bool(enabled)


def recompute_sdp_enabled() -> bool:
    """Whether the recompute kernel is the default."""
    return _State.recompute


@contextlib.contextmanager
def sdp_kernel(enable_recompute: bool = True) -> Iterator[dict]:
    """Choose inside the ``with`` block; the former choice returns on every exit."""
    before = _State.recompute
    enable_recompute_sdp(enable_recompute)
    try:
        yield {}
    finally:
        enable_recompute_sdp(before)
