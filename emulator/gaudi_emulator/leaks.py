"""Which memory of the cards was allocated in a block of code and outlived it, and where?"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Leaked", "LeakedAllocation", "leaks"]

_SHOWN = 20


@dataclass(frozen=True)
class LeakedAllocation:
    """Memory of a card that is still held.

    Attributes:
        card: index of the card, as in `hpu:0`.
        bytes: its size.
        stack: the Python code that allocated it, innermost first, as "file:line function"; at most
            GAUDI_EMULATOR_LEAK_FRAMES of them.
    """

    card: int
    bytes: int
    stack: tuple[str, ...]


@dataclass
class Leaked:
    """What a block left behind; complete when the block has ended. True if there is something."""

    allocations: list[LeakedAllocation] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.allocations)

    def __len__(self) -> int:
        return len(self.allocations)

    @property
    def bytes(self) -> int:
        """Their sizes together."""
        return sum(allocation.bytes for allocation in self.allocations)

    def __str__(self) -> str:
        if not self.allocations:
            return "nothing leaked"
        largest = sorted(self.allocations, key=lambda a: a.bytes, reverse=True)
        lines = [f"{len(largest)} allocation(s) with {self.bytes} bytes are still held:"]
        for allocation in largest[:_SHOWN]:
            lines.append(f"  {allocation.bytes} bytes on hpu:{allocation.card}, allocated at")
            lines += [f"    {frame}" for frame in allocation.stack]
        if len(largest) > _SHOWN:
            lines.append(f"  and {len(largest) - _SHOWN} smaller ones")
        return "\n".join(lines)


@contextmanager
def leaks() -> Iterator[Leaked]:
    """Record the allocations inside the block; afterwards those that are still held.

    In a test: ``with leaks() as leaked: ...``, and then ``assert not leaked, leaked``.
    Unreachable cycles are collected first, since they hold nothing that the program can use. Blocks
    may be nested and used in several threads; every thread's allocations count.
    """
    from . import _C

    gc.collect()
    _C.log_begin()
    start = _C.last_serial()
    leaked = Leaked()
    try:
        yield leaked
    finally:
        gc.collect()
        leaked.allocations = [
            LeakedAllocation(card, size, tuple(where.splitlines()))
            for _, card, size, where in _C.logged_allocations(start)
        ]
        _C.log_end()
