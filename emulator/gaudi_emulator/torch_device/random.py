"""Random numbers of the cards; each card has its own generator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from gaudi_emulator import _C

from .devices import card_index


def default_generators() -> tuple[torch.Generator, ...]:
    """Return the generators that operators use when given none, one per card."""
    return tuple(_C.default_generator(i) for i in range(_C.card_count()))


def _generator(device: Any) -> torch.Generator:
    return _C.default_generator(card_index(device))


def manual_seed(seed: int) -> None:
    """Seed the current card."""
    _generator(None).manual_seed(int(seed))


def manual_seed_all(seed: int) -> None:
    """Seed every card."""
    for generator in default_generators():
        generator.manual_seed(int(seed))


def seed() -> int:
    """Seed the current card from the system's entropy and return the seed."""
    return _generator(None).seed()


def seed_all() -> int:
    """Seed every card with the same new seed and return it."""
    value = seed()
    manual_seed_all(value)
    return value


def initial_seed() -> int:
    """Return the seed of the current card."""
    return _generator(None).initial_seed()


def get_rng_state(device: Any = "hpu") -> torch.Tensor:
    """Return the state of the card's generator as a uint8 CPU tensor."""
    return _generator(device).get_state()


def get_rng_state_all() -> list[torch.Tensor]:
    """Return the states of all cards."""
    return [generator.get_state() for generator in default_generators()]


def set_rng_state(new_state: torch.Tensor, device: Any = "hpu") -> None:
    """Set the state of the card's generator."""
    _generator(device).set_state(new_state)


def set_rng_state_all(new_states: Iterable[torch.Tensor]) -> None:
    """Set the states of all cards, in their order."""
    for generator, state in zip(default_generators(), new_states, strict=True):
        generator.set_state(state)
