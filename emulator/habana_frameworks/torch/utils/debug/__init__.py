"""Looking into the bridge: clean-up between tests, where a tensor lies, logging.

Names: python_packages/habana_frameworks/torch/utils/debug of HabanaAI/gaudi-pytorch-bridge. What
steers passes of the card's compilers, or prints their tables, has no counterpart here and raises.
"""

import gc

import torch

from habana_frameworks.torch._device import data_ptr, empty_cache, synchronize
from habana_frameworks.torch._missing import refuse

from .logger import Logger

__all__ = ["Logger", "_bridge_cleanup", "get_tensor_info"]


def _bridge_cleanup() -> None:
    """Finish all work of the cards and give back memory that nobody holds."""
    gc.collect()
    synchronize()
    empty_cache()


def get_tensor_info(tensor: torch.Tensor) -> tuple[int, int] | None:
    """Address and size in bytes of the storage of an ``hpu`` tensor; None for any other."""
    if tensor.device.type != "hpu":
        return None
    before = tensor.storage_offset() * tensor.element_size()
    return data_ptr(tensor) - before, tensor.untyped_storage().nbytes()


__getattr__ = refuse(__name__)
