"""Which padded sizes can occur: for a box of step sizes, a step inside it or the proof of none.

A row has between 1 and ``max_model_len`` tokens, of which at least one is new. Extending a row's
cached context by a token changes the number of its blocks by at most one, so between the fewest and
the most blocks that some rows can have every number occurs. What remains to decide are the numbers
of rows:

- decode rows want to be few tokens and few blocks each; the most tokens they can bring grows with
  them
- the same holds for prefill rows, so for given decode rows the most prefill rows are the best
  choice

which makes the search linear in the number of decode rows, and it usually ends at once.
"""

from dataclasses import dataclass

from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.step import Step


@dataclass(frozen=True, slots=True)
class Box:
    """Sizes of the steps that share a key: each pair is (above, up to).

    ``rows`` bounds decode rows. ``prefill_blocks`` None means no cached context.
    """

    rows: tuple[int, int]
    decode_blocks: tuple[int, int]
    tokens: tuple[int, int]
    prefill_blocks: tuple[int, int] | None


def decode_step(limits: Limits, box: Box) -> Step | None:
    """A decode-only step inside ``box`` (rows and decode blocks count), or None."""
    # More rows are better: they allow more blocks, and the fewest blocks are one for each.
    rows = min(box.rows[1], box.decode_blocks[1], limits.max_num_seqs)
    blocks = max(rows, box.decode_blocks[0] + 1)
    if rows <= box.rows[0] or blocks > rows * limits.blocks_per_row:
        return None
    return Step(rows, rows, blocks, 0, 0, 0)


def prefill_step(limits: Limits, box: Box) -> Step | None:
    """A step of prefill rows only inside ``box`` (tokens and prefill blocks count), or None."""
    return _with_decode_rows(limits, box, 0)


def mixed_step(limits: Limits, box: Box) -> Step | None:
    """A step with decode and prefill rows inside ``box``, or None if there is none."""
    fewest = -(-(box.decode_blocks[0] + 1) // limits.blocks_per_row)
    most = min(box.decode_blocks[1], limits.max_num_seqs - 1, box.tokens[1])
    for rows in range(fewest, most + 1):
        step = _with_decode_rows(limits, box, rows)
        if step is not None:
            return step
    return None


def _with_decode_rows(limits: Limits, box: Box, decode_rows: int) -> Step | None:
    shortest = limits.query_len + 1  # tokens of the shortest prefill row
    above, up_to = box.tokens
    if limits.prefill_rows == 0:
        return None
    rows = min(limits.max_num_seqs - decode_rows, (up_to - decode_rows) // shortest)
    if box.prefill_blocks is None:
        most_tokens = rows * limits.max_model_len
    else:
        per_row = -(-shortest // limits.block_size)
        # A shortest row that fills its blocks needs one more for the cached token.
        spare = 1 if shortest % limits.block_size == 0 else 0
        rows = min(rows, (box.prefill_blocks[1] - spare) // per_row)
        # One token of the rows' capacity is cached, not new.
        most_tokens = _capacity(rows, box.prefill_blocks[1], limits.max_model_len, limits) - 1
        if rows * limits.blocks_per_row <= box.prefill_blocks[0]:
            return None
    if rows < 1 or most_tokens < rows * shortest:
        return None
    most_decode = _capacity(decode_rows, box.decode_blocks[1], limits.row_query_len, limits)
    prefill = min(most_tokens, max(rows * shortest, above + 1 - decode_rows))
    decode = max(decode_rows, above + 1 - prefill)
    if decode > most_decode:
        return None
    return Step(
        decode_rows=decode_rows,
        decode_tokens=decode,
        decode_blocks=max(
            box.decode_blocks[0] + 1 if decode_rows else 0,
            _fewest_blocks(decode_rows, decode, limits.row_query_len, limits),
        ),
        prefill_rows=rows,
        prefill_tokens=prefill,
        prefill_blocks=0
        if box.prefill_blocks is None
        else max(
            box.prefill_blocks[0] + 1,
            rows * -(-shortest // limits.block_size),
            _fewest_blocks(rows, prefill + 1, limits.max_model_len, limits),
        ),
    )


def _capacity(rows: int, blocks: int, row_tokens: int, limits: Limits) -> int:
    """Most tokens in ``rows`` rows of at most ``row_tokens`` each and ``blocks`` blocks together.

    The last block of a row that is ``row_tokens`` long is only partly used, so it is used last.
    """
    full_per_row = (row_tokens - 1) // limits.block_size
    full = min(blocks, rows * full_per_row)
    partial = min(blocks - full, rows)
    return full * limits.block_size + partial * (row_tokens - full_per_row * limits.block_size)


def _fewest_blocks(rows: int, tokens: int, row_tokens: int, limits: Limits) -> int:
    """Fewest blocks for ``tokens`` in ``rows`` rows, at least one each: _capacity reversed."""
    full_per_row = (row_tokens - 1) // limits.block_size
    full_capacity = rows * full_per_row * limits.block_size
    if tokens <= full_capacity:
        return max(rows, -(-tokens // limits.block_size))
    last = row_tokens - full_per_row * limits.block_size
    return max(rows, rows * full_per_row - (-(tokens - full_capacity) // last))


def rows_of(step: Step, limits: Limits) -> tuple[list[int], list[int]]:
    """Scheduled and computed tokens of rows that make up ``step``, decode rows first.

    Raises ValueError if no rows do, within ``limits``.
    """
    longest = limits.max_model_len
    per_row = _row_blocks(step.decode_rows, step.decode_blocks, (1, limits.row_query_len), limits)
    lengths = [min(blocks * limits.block_size, longest) for blocks in per_row]
    scheduled = _spread(step.decode_tokens, 1, [min(limits.row_query_len, n) for n in lengths])
    shortest = limits.query_len + 1
    if step.prefill_blocks:
        per_row = _row_blocks(step.prefill_rows, step.prefill_blocks, (shortest, longest), limits)
        more = [min(blocks * limits.block_size, longest) for blocks in per_row]
        scheduled += _spread(step.prefill_tokens, shortest, more)
    else:
        more = _spread(step.prefill_tokens, shortest, [longest] * step.prefill_rows)
        scheduled += more
    lengths += more
    return scheduled, [length - new for length, new in zip(lengths, scheduled, strict=True)]


def _row_blocks(rows: int, blocks: int, tokens: tuple[int, int], limits: Limits) -> list[int]:
    """Blocks of each row such that rows of ``tokens`` (fewest, most) have the most room."""
    size = limits.block_size
    fewest, most = tokens
    counts = [-(-fewest // size)] * rows
    for level in ((most - 1) // size, -(-most // size), limits.blocks_per_row):
        rest = blocks - sum(counts)
        counts = _fill(counts, rest, [level] * rows)
    if sum(counts) != blocks:
        raise ValueError(f"{blocks} blocks are not what {rows} rows can have within {limits}.")
    return counts


def _spread(total: int, least: int, most: list[int]) -> list[int]:
    """``total`` as one number for each row, from ``least`` to what ``most`` says of the row."""
    values = _fill([least] * len(most), total - least * len(most), most)
    if sum(values) != total:
        raise ValueError(f"{total} tokens do not fit in {len(most)} rows of {least} to {most}.")
    return values


def _fill(values: list[int], rest: int, most: list[int]) -> list[int]:
    """Add up to ``rest`` to ``values``, from the first to the last, none above its ``most``."""
    filled = []
    for value, limit in zip(values, most, strict=True):
        more = max(0, min(rest, limit - value))
        filled.append(value + more)
        rest -= more
    return filled
