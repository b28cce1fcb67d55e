"""Which card and which software is present.

Source of the API facts: the PyTorch bridge's ``torch.hpu`` module (Intel Gaudi documentation,
"PyTorch API reference").
"""

import functools
import importlib.util
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class DeviceInfo:
    """A Gaudi host as this process sees it.

    ``software`` names the distribution that provides the bridge, with its version and summary.
    """

    name: str
    count: int
    software: str


class BridgeMissingError(ImportError):
    """The bridge (``habana_frameworks``) is not installed."""


def bridge_installed() -> bool:
    """Whether some distribution provides ``habana_frameworks``; imports nothing."""
    return importlib.util.find_spec("habana_frameworks") is not None


def load_bridge() -> None:
    """Import the bridge, which registers the device with PyTorch, and ask for whole int64.

    With PT_HPU_LAZY_MODE=1 the bridge's default is to hold int64 tensors in 32 bits
    (PT_ENABLE_INT64_SUPPORT); the noise of sampling would then be the same at every position.

    Raises:
        BridgeMissingError: no distribution provides it.
        Exception: whatever a broken installation raises while it is imported.
    """
    if not bridge_installed():
        raise BridgeMissingError("no package provides habana_frameworks")
    import habana_frameworks.torch  # noqa: F401
    from habana_frameworks.torch.internal import bridge_config

    if not bridge_config.get_pt_enable_int64_support():
        bridge_config.set_pt_enable_int64_support(True)


def software() -> str:
    """The distribution that provides the bridge, e.g. ``habana-torch-plugin 1.24.1 (...)``."""
    names = sorted(set(metadata.packages_distributions().get("habana_frameworks", ())))
    if not names:
        return "unknown distribution"
    data = metadata.metadata(names[0])
    summary = data.json.get("summary")
    described = f"{names[0]} {data['Version']}"
    return f"{described} ({summary})" if summary else described


def loaded_too_late() -> bool:
    """Whether PyTorch was asked for its accelerator before the bridge was there.

    It looks for the hooks of HPU once, at the first question to ``torch.accelerator``, which
    ``import transformers`` asks. If the bridge comes later, ``torch.Generator(device="hpu")``,
    pinned memory and gradients do not work in this process. The bridge comes with
    ``import torch`` by itself, but not with PT_HPU_LAZY_MODE=1.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None and accelerator.type == "hpu":
        return False
    try:
        torch.Generator(device="hpu")
    except RuntimeError:
        return True
    return False


@functools.cache
def device_info() -> DeviceInfo:
    """Query the device. Raises whatever the bridge raises when it is broken."""
    import torch

    load_bridge()
    count = torch.hpu.device_count() if torch.hpu.is_available() else 0
    name = torch.hpu.get_device_name() if count else "none"
    return DeviceInfo(name=name, count=count, software=software())
