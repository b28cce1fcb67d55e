"""The real sizes of a step, before padding."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Step(NamedTuple):
    """What one step computes. Decode rows are those with at most ``query_len`` scheduled tokens.

    ``prefill_blocks`` is 0 when no prefill row has cached context, otherwise the number of KV
    blocks of all prefill rows, this step's tokens included.
    """

    decode_rows: int
    decode_tokens: int
    decode_blocks: int
    prefill_rows: int
    prefill_tokens: int
    prefill_blocks: int

    @property
    def tokens(self) -> int:
        return self.decode_tokens + self.prefill_tokens

    @property
    def rows(self) -> int:
        return self.decode_rows + self.prefill_rows


def step_of(
    scheduled: Sequence[int] | NDArray[np.integer],
    computed: Sequence[int] | NDArray[np.integer],
    block_size: int,
    query_len: int,
) -> Step:
    """Count a step.

    scheduled, computed: one integer per row, in any row order; tokens the row computes in this step
    (at least 1) and tokens it has computed before. A row occupies
    ``ceil((computed + scheduled) / block_size)`` KV blocks.

    Runs on every step, so it is a handful of numpy calls whatever the number of rows, and calls the
    reduction itself: the method ``sum`` takes twice as long for a few hundred rows.
    """
    new = np.asarray(scheduled)
    old = np.asarray(computed)
    # Negated floor division rounds up without an intermediate sum with block_size - 1.
    blocks = -(-(new + old) // block_size)
    prefill = new > query_len
    rows = len(new)
    all_tokens = int(np.add.reduce(new))
    all_blocks = int(np.add.reduce(blocks))
    prefill_rows = int(np.count_nonzero(prefill))
    if not prefill_rows:
        return Step(rows, all_tokens, all_blocks, 0, 0, 0)
    tokens = int(np.add.reduce(new[prefill]))
    row_blocks = int(np.add.reduce(blocks[prefill]))
    return Step(
        decode_rows=rows - prefill_rows,
        decode_tokens=all_tokens - tokens,
        decode_blocks=all_blocks - row_blocks,
        prefill_rows=prefill_rows,
        prefill_tokens=tokens,
        prefill_blocks=row_blocks if np.count_nonzero(old[prefill]) else 0,
    )
