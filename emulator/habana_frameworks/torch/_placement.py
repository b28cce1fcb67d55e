"""Flags that say where and in what width operators compute.

PT_HPU_PLACE_ON_CPU names operators that run on the host, separated by commas: as "add", or
"add.Tensor", or with "aten::" before it. On a card the empty default lets every operator without a
kernel run there; the emulated device refuses those until they are named, so that none does it
unnoticed. "none" stands for no operator, as on a card.

Without PT_ENABLE_INT64_SUPPORT the card holds int64 tensors in 32 bits. Values wrap.

Source: scripts/env_flags.yaml and habana_kernels/fallback_helper.cpp of
HabanaAI/gaudi-pytorch-bridge.
"""

from ._device import place_on_host, set_native_int64
from .internal import bridge_config
from .internal.flags import FlagValue

__all__ = ["follow_placement_flags"]


def _place(operators: FlagValue) -> None:
    names = [name.strip() for name in str(operators).split(",") if name.strip()]
    place_on_host([] if "none" in names else names)


def follow_placement_flags() -> None:
    """Do what PT_HPU_PLACE_ON_CPU and PT_ENABLE_INT64_SUPPORT say."""
    bridge_config.on_change("PT_HPU_PLACE_ON_CPU", _place)
    bridge_config.on_change("PT_ENABLE_INT64_SUPPORT", lambda on: set_native_int64(bool(on)))
