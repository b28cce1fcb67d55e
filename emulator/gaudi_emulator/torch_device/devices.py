"""Which cards are there, and which one is current?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from gaudi_emulator import _C

_ACTIVATED_IN = os.getpid()


def card_index(device: Any = None, optional: bool = True) -> int:
    """Index of the card that `device` (int, str, torch.device or None for the current) means.

    Raises:
        ValueError: the device is not an hpu, or None where one is needed.
    """
    if device is None:
        if not optional:
            raise ValueError("expected an hpu device, got None")
        return _C.current_card()
    if isinstance(device, bool):
        raise ValueError(f"expected an hpu device, got {device!r}")
    if isinstance(device, int):
        return _C.current_card() if device < 0 else device
    parsed = torch.device(device)
    if parsed.type != "hpu":
        raise ValueError(f"expected an hpu device, got {device!r}")
    return _C.current_card() if parsed.index is None else parsed.index


def is_in_bad_fork() -> bool:
    """Whether this process was forked after the device was taken; a card cannot be shared so."""
    return os.getpid() != _ACTIVATED_IN


def lazy_init() -> None:
    """Check that the device can be used in this process.

    Raises:
        RuntimeError: the process is a fork of one that uses the device.
    """
    if is_in_bad_fork():
        raise RuntimeError(
            "cannot use the HPU device in a forked process: the parent has acquired it. "
            "Start subprocesses with the 'spawn' method."
        )


def init() -> None:
    """Acquire the device; done already when `torch.hpu` exists."""
    lazy_init()


def is_initialized() -> bool:
    """Whether the device is acquired by this process."""
    return not is_in_bad_fork()


def is_available() -> bool:
    """Whether at least one card is visible to this process."""
    return device_count() > 0


def device_count() -> int:
    """Number of cards visible to this process."""
    return _C.card_count()


def current_device() -> int:
    """Index of the calling thread's current card."""
    return _C.current_card()


def set_device(device: Any) -> None:
    """Make `device` the calling thread's current card."""
    lazy_init()
    _C.set_current_card(card_index(device))


class device:
    """Context in which another card is current; None changes nothing."""

    def __init__(self, device: Any) -> None:
        self.index = None if device is None else card_index(device)
        self._before = -1

    def __enter__(self) -> device:
        if self.index is not None:
            self._before = _C.current_card()
            _C.set_current_card(self.index)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.index is not None:
            _C.set_current_card(self._before)


class device_of(device):
    """Context in which the card of a tensor is current; other tensors change nothing."""

    def __init__(self, obj: torch.Tensor) -> None:
        super().__init__(obj.device if obj.device.type == "hpu" else None)


def synchronize(device: Any = None) -> None:
    """Wait until the card has finished all submitted work. Counted as a host synchronisation."""
    lazy_init()
    _C.synchronize(card_index(device))


@dataclass(frozen=True)
class DeviceProperties:
    """What a card says about itself.

    Attributes:
        name: "GAUDI2" or "GAUDI3".
        total_memory: bytes.
        module: number of the module in its host.
    """

    name: str
    total_memory: int
    module: int


def _settings() -> Any:
    from gaudi_emulator import activate

    return activate()


def _checked(device: Any) -> int:
    index = card_index(device)
    if not 0 <= index < _C.card_count():
        raise ValueError(f"invalid device hpu:{index}: {_C.card_count()} card(s) are visible")
    return index


def get_device_name(device: Any = None) -> str:
    """Name of the card, such as "GAUDI3"."""
    _checked(device)
    return _settings().device_name


def get_device_capability(device: Any = None) -> str:
    """Name of the generation; Gaudi has no numbered compute capability."""
    return get_device_name(device)


def get_device_properties(device: Any = None) -> DeviceProperties:
    """Name, memory and module number of the card."""
    index = _checked(device)
    settings = _settings()
    return DeviceProperties(settings.device_name, settings.memory_bytes, settings.modules[index])


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """Whether a card reaches the memory of another one; all cards of a host are connected."""
    if _checked(device) == _checked(peer_device):
        raise ValueError(f"expected two cards, got hpu:{_checked(device)} twice")
    return True


def get_arch_list() -> list[str]:
    """Names of the generations that programs are compiled for: the one of the cards here."""
    return [get_device_name()]


def get_gencode_flags() -> str:
    """Flags of a device compiler that libraries were built with; there is none."""
    return ""
