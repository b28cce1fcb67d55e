"""``import torch`` brings the bridge: the entry point ``torch.backends`` of habana-torch-plugin.

Names and conditions: python_packages/habana_frameworks/autoload of HabanaAI/gaudi-pytorch-bridge.
``PT_HPU_AUTOLOAD`` decides with 1 or 0. Without it the bridge comes by itself unless the lazy mode
is on; the lazy mode is what PT_HPU_LAZY_MODE=1 says, and since release 1.20 nothing else (1.19 took
an unset variable for it). PyTorch's own TORCH_DEVICE_BACKEND_AUTOLOAD=0 switches all of it off.
"""

import os

__all__ = ["is_autoload_enabled", "is_loaded"]

is_loaded = False
"""Whether ``habana_frameworks.torch`` is imported, or being imported, in this process."""


def is_autoload_enabled() -> bool:
    """Whether ``import torch`` is to import ``habana_frameworks.torch``."""
    choice = os.environ.get("PT_HPU_AUTOLOAD", "")
    if choice in ("0", "1"):
        return choice == "1"
    return os.environ.get("PT_HPU_LAZY_MODE", "0") != "1"


def __autoload() -> None:
    """What PyTorch calls at the end of its own import."""
    if not is_loaded and is_autoload_enabled():
        import habana_frameworks.torch  # noqa: F401
