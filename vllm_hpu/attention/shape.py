"""The static sizes of a step's attention: those of its planned key, or its own."""

from dataclasses import dataclass

import numpy as np
from vllm.v1.attention.backend import CommonAttentionMetadata

from vllm_hpu.shapes.key import GraphKey

__all__ = ["AttentionShape"]


@dataclass(frozen=True)
class AttentionShape:
    """The static sizes of a step's attention.

    tokens          tokens, padding included
    decode_rows     leading rows of which those with 1 to ``decode_queries`` tokens are decode rows
    decode_queries  most tokens of a decode row
    decode_blocks   room for the blocks of all decode rows
    has_prefill     whether other rows may hold tokens
    prefill_blocks  room for the blocks of all prefill rows; 0: they see this step's tokens only
    """

    tokens: int
    decode_rows: int
    decode_queries: int
    decode_blocks: int
    has_prefill: bool
    prefill_blocks: int

    @classmethod
    def planned(cls, key: GraphKey, decode_queries: int, rows: int) -> "AttentionShape":
        """The sizes of a planned graph for a step of ``rows`` rows, padding included."""
        return cls(
            key.tokens,
            min(key.decode_rows, rows),
            decode_queries,
            key.decode_blocks,
            key.has_prefill,
            key.prefill_blocks,
        )

    @classmethod
    def of_step(
        cls,
        common: CommonAttentionMetadata,
        decode_queries: int,
        block_size: int,
        later_tokens: int,
    ) -> "AttentionShape":
        """Sizes for a step without a plan, from what the host knows.

        Args:
            later_tokens: how much longer sequences may get while the same metadata is in use.
        """
        lengths = np.diff(common.query_start_loc_cpu.numpy()[: common.num_reqs + 1])
        if common.seq_lens_cpu_upper_bound is None:
            longest = np.full(common.num_reqs, common.max_seq_len)
        else:
            longest = common.seq_lens_cpu_upper_bound.numpy()[: common.num_reqs]
        blocks = -(-(longest + later_tokens) // block_size)
        queries = max(1, min(decode_queries, common.max_query_len))
        long_rows = np.flatnonzero(lengths > queries)
        rows = int(long_rows[0]) if long_rows.size else common.num_reqs
        prefill = slice(rows, None)
        cached = bool(np.any((longest > lengths)[prefill] & (lengths[prefill] > 0)))
        return cls(
            tokens=common.num_actual_tokens,
            decode_rows=rows,
            decode_queries=queries,
            decode_blocks=_coarse(int(blocks[:rows].sum())),
            has_prefill=bool(long_rows.size),
            prefill_blocks=_coarse(int(blocks[prefill].sum())) if cached else 0,
        )


def _coarse(count: int) -> int:
    """Round up to one of four sizes per power of two, so that unplanned steps repeat shapes."""
    step = max(1, (1 << max(count - 1, 0).bit_length()) // 8)
    return -(-count // step) * step
