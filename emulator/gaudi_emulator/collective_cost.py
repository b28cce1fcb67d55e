"""How many bytes does a collective send over one link between two cards?

Cards of a box are connected all to all, so every pair has links of its own and a collective uses
all of them at once. Counted is the least that any algorithm must send, spread evenly: for
all-reduce the bound of Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters
of workstations", JPDC 69(2), 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

__all__ = ["CollectiveCost", "captured_call", "link_bytes"]

# Of a tensor of S bytes and n ranks, what one card sends to one other, as a multiple of S / n.
# S is what the caller's written tensors hold, of collectives that only read it is what they read.
_PARTS = {
    "all_reduce": 2,
    "reduce": 2,
    "reduce_scatter": 1,
    "reduce_scatter_coalesced": 1,
    "all_gather": 1,
    "all_gather_coalesced": 1,
    "all_gather_into": 1,
    "all_to_all": 1,
    "all_to_all_single": 1,
    "broadcast": 2,  # a part to every card, which hands it on
    "barrier": 0,
}

_captured: dict[int, tuple[str, int]] = {}


def link_bytes(kind: str, ranks: int, written_bytes: int, read_bytes: int) -> int:
    """Bytes that the busiest link between two cards carries in one direction.

    Args:
        kind: name of the function of ``distributed/hccl/transport.py``.
        ranks: cards that take part.
        written_bytes, read_bytes: of the tensors that one rank writes and reads.

    Raises:
        KeyError: an unknown kind.
    """
    size = max(written_bytes, read_bytes)
    if kind in ("send", "receive"):
        return size
    if kind == "gather":
        return read_bytes if ranks > 1 else 0
    if kind == "scatter":
        return written_bytes if ranks > 1 else 0
    return _PARTS[kind] * size // ranks if ranks > 1 else 0


def captured_call(call: int) -> tuple[str, int]:
    """Kind and ranks of collective number ``call`` of this process's graphs."""
    return _captured[call]


class CollectiveCost(NamedTuple):
    """What a collective is, for whoever asks what it costs.

    Attributes:
        kind: name of the function of ``distributed/hccl/transport.py``.
        ranks: cards that take part.
    """

    kind: str
    ranks: int

    def note_captured(self, call: int) -> None:
        """It is number ``call`` of this process's graphs."""
        _captured[call] = (self.kind, self.ranks)

    def tell(self, written: Sequence[torch.Tensor], read: Sequence[torch.Tensor]) -> None:
        """It starts now, outside of graphs; nobody may be interested."""
        from . import _C

        if _C.observed():
            from .observation import hub

            tensors = [*written, *read]
            card = tensors[0].device.index if tensors else _C.current_card()
            hub.collective(self.kind, self.ranks, card, written, read)
