"""Is a card's free memory in one piece?"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MemoryLayout", "memory_layout"]


@dataclass(frozen=True)
class MemoryLayout:
    """The free memory of a card.

    Attributes:
        free_bytes: all of it.
        largest_free_bytes: its largest piece, so the largest allocation that can succeed.
        free_pieces: how many pieces it is in.
        fragmented_errors: allocations refused because no piece was large enough, though enough
            was free.
    """

    free_bytes: int
    largest_free_bytes: int
    free_pieces: int
    fragmented_errors: int

    @property
    def fragmentation(self) -> float:
        """The part of the free memory that the largest allocation cannot have, 0 to 1."""
        return 1 - self.largest_free_bytes / self.free_bytes if self.free_bytes else 0.0


def memory_layout(card: int = 0) -> MemoryLayout:
    """The free memory of `hpu:card`; in one piece unless GAUDI_EMULATOR_FRAGMENTATION is set."""
    from . import _C

    stats = _C.memory_stats(card)
    return MemoryLayout(
        free_bytes=stats["total_bytes"] - stats["in_use_bytes"],
        largest_free_bytes=stats["largest_free_bytes"],
        free_pieces=stats["free_pieces"],
        fragmented_errors=stats["fragmented_errors"],
    )
