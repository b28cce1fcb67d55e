"""Whether one more row still fits into a step of the plan."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_hpu.shapes.limits import Limits


@dataclass(frozen=True)
class StepBounds:
    """What all rows of a step may have together so that the plan has a key for it.

    block_size      tokens of a KV block
    query_len       tokens a decode row may have
    decode_blocks   KV blocks of all decode rows
    prefill_blocks  KV blocks of all prefill rows, if any of them has cached context
    """

    block_size: int
    query_len: int
    decode_blocks: int
    prefill_blocks: int

    @classmethod
    def of(cls, limits: Limits) -> StepBounds:
        return cls(limits.block_size, limits.query_len, limits.decode_blocks, limits.prefill_blocks)


class StepBudget:
    """Counts the rows of a step that is being put together.

    The token budget may cut a prefill row down to a decode row at the last moment, so every row
    counts against the decode rows' blocks, and prefill rows against both.
    """

    def __init__(self, bounds: StepBounds) -> None:
        self.bounds = bounds
        self._all = self._prefill = 0
        self._context = False

    def admits(self, new: int, computed: int) -> bool:
        """Whether a row of ``new`` tokens after ``computed`` ones fits. The first one always does.

        A row alone is within the limits, which every plan covers.
        """
        if not self._all:
            return True
        blocks = -(-(new + computed) // self.bounds.block_size)
        if self._all + blocks > self.bounds.decode_blocks:
            return False
        if new <= self.bounds.query_len or not (self._context or computed):
            return True
        return self._prefill + blocks <= self.bounds.prefill_blocks

    def add(self, new: int, computed: int) -> None:
        """The row is part of the step."""
        blocks = -(-(new + computed) // self.bounds.block_size)
        self._all += blocks
        if new > self.bounds.query_len:
            self._prefill += blocks
            self._context = self._context or computed > 0
