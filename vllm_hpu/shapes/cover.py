"""The cheapest of some keys for any sizes: a table over the sizes that occur in them."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.kinds import Sizes


class Cell(NamedTuple):
    """Sizes that lead to the same key: above ``low`` and up to ``high`` in every dimension."""

    low: Sizes
    high: Sizes
    key: GraphKey


class Cover:
    """Answers which key is the cheapest of those at least as large in every dimension.

    The table has one entry for each combination of sizes of the keys, so an answer takes one binary
    search per dimension, however many keys there are.
    """

    def __init__(self, entries: Sequence[tuple[Sizes, GraphKey]]) -> None:
        """``entries``: at least one key with its sizes, the cheapest first."""
        self.axes = tuple(
            tuple(sorted(set(sizes))) for sizes in zip(*(s for s, _ in entries), strict=True)
        )
        self._keys = [key for _, key in entries]
        # A rank is a place in the list of keys; beyond its end stands for none.
        table = np.full([len(axis) for axis in self.axes], len(entries))
        for rank in reversed(range(len(entries))):
            table[self._place(entries[rank][0])] = rank
        for axis in range(table.ndim):
            table = np.flip(np.minimum.accumulate(np.flip(table, axis), axis), axis)
        self._table = table

    def _place(self, sizes: Iterable[int]) -> tuple[int, ...]:
        return tuple(map(bisect_left, self.axes, sizes))

    def find(self, sizes: Iterable[int]) -> GraphKey | None:
        """The cheapest key for ``sizes``; None if no key is as large."""
        try:
            return self._keys[self._table.item(self._place(sizes))]
        except IndexError:
            return None

    def cells(self) -> Iterator[Cell]:
        """All cells with a key, the largest first of each key; the smallest sizes are above -1."""
        lows = [(-1, *axis[:-1]) for axis in self.axes]
        for flat in reversed(range(self._table.size)):
            rank = self._table.item(flat)
            if rank < len(self._keys):
                place = np.unravel_index(flat, self._table.shape)
                low = tuple(axis[index] for axis, index in zip(lows, place, strict=True))
                high = tuple(axis[index] for axis, index in zip(self.axes, place, strict=True))
                yield Cell(low, high, self._keys[rank])
