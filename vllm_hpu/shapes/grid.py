"""Grids: the sizes that one dimension of a key may take."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import pairwise

from vllm_hpu.shapes.key import GraphKey, decode_key, prefill_key
from vllm_hpu.shapes.limits import Limits

Grid = tuple[int, ...]  # strictly increasing, all at least 1


@dataclass(frozen=True)
class Grids:
    """Sizes to combine. Each grid ends at what the limits need of its dimension.

    A prefill step without cached context has 0 prefill blocks; that 0 is implied, not listed.
    Mixed steps take their tokens from ``prefill_tokens`` and their decode rows from the limits.
    Grids of dimensions that no step has (prefill, when every row is a decode row) are empty.
    """

    decode_rows: Grid
    decode_blocks: Grid
    prefill_tokens: Grid
    prefill_blocks: Grid
    mixed_decode_blocks: Grid
    mixed_prefill_blocks: Grid

    def __post_init__(self) -> None:
        for field in fields(self):
            grid = getattr(self, field.name)
            if any(low >= high for low, high in pairwise((0, *grid))):
                raise ValueError(
                    f"{field.name} is {grid}; a grid holds increasing sizes of at least 1. "
                    "Correct the strategy that made it."
                )

    def keys(self, limits: Limits) -> Iterator[GraphKey]:
        """Every combination of the sizes of a kind."""
        for rows in self.decode_rows:
            for blocks in self.decode_blocks:
                yield decode_key(limits, rows, blocks)
        for tokens in self.prefill_tokens:
            for context in (0, *self.prefill_blocks):
                yield prefill_key(limits, tokens, 0, context)
            for blocks in self.mixed_decode_blocks:
                for context in (0, *self.mixed_prefill_blocks):
                    yield prefill_key(limits, tokens, blocks, context)


def geometric(first: int, last: int, factor: int = 2) -> Grid:
    """``first``, ``first * factor``, ... and always ``last``; empty when ``last`` is 0.

    A size that ``last`` exceeds by less than a quarter is left out: it would save little padding.

    >>> geometric(16, 100), geometric(16, 70)
    ((16, 32, 64, 100), (16, 32, 70))
    """
    values = []
    value = first
    while 5 * value <= 4 * last:
        values.append(value)
        value *= factor
    return (*values, last) if last else ()


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least ``number`` (1 for 0)."""
    return 1 << max(number - 1, 0).bit_length()
