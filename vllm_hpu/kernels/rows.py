"""Which row does a token belong to? The question every flat-layout kernel starts with.

Rows of a step are described by start offsets (`query_start_loc`, `cu_num_logits`), tokens by
their place in the flat batch. All answers have shapes that follow from shapes alone, so that one
compiled graph serves every step of its key.

Request state has one row more than there are requests: the last row is the *dump row*. Rows that
only pad a step point at it, and so do writes that must not happen.
"""

import torch
from torch.nn.functional import pad


def rows_of(starts: torch.Tensor, num_rows: int, num_items: int) -> torch.Tensor:
    """Row of each of the first `num_items` flat items; `num_rows` for items behind the last row.

    starts: [>= num_rows + 1] int32 or int64, non-decreasing; row i holds the items
    starts[i] <= item < starts[i + 1]. Returns [num_items] int64. Empty rows own nothing.
    """
    items = torch.arange(num_items, dtype=starts.dtype, device=starts.device)
    return torch.searchsorted(starts[1 : num_rows + 1], items, right=True)


def take(state: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """`state[rows]` along the first dimension, as one gather. rows: [n] int32 or int64, >= 0."""
    return state.index_select(0, rows)


def with_pad(per_row: torch.Tensor, value: int) -> torch.Tensor:
    """`per_row` [n] with one more element `value`: the answer for the items of no row."""
    return pad(per_row, (0, 1), value=value)


def lengths_of(starts: torch.Tensor, num_rows: int) -> torch.Tensor:
    """[num_rows] number of items per row."""
    return starts[1 : num_rows + 1] - starts[:num_rows]


def lookup(table: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """`table[rows, columns]`, columns clipped into the table.

    table: [R, W]; rows and columns: equal shapes, any integer type, rows in range. An item that
    nobody reads (padding) may come with a column outside of the table; a card would fetch foreign
    memory there.
    """
    return table[rows.long(), columns.long().clamp(0, table.shape[1] - 1)]


def dump_row(state: torch.Tensor) -> int:
    """Index of the row of a request-state tensor that no request owns."""
    return state.shape[0] - 1
