"""Exponential grids: sizes double, so at most half of a graph's work is padding."""

from collections.abc import Iterable

from vllm_hpu.shapes.grid import Grid, Grids, geometric, power_of_two
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.plan import Cost

_FIRST_TOKENS = 32  # a shorter prompt is padded to this: smaller graphs save no time on the card
_FIRST_CONTEXT_TOKENS = 1024  # the least that cached context is padded to, in whole blocks
_COARSE = 4  # growth of the dimensions that cost little when padded


class Exponential:
    """Doubles tokens, rows and blocks; the last size of every grid is the most the limits need.

    Blocks of prefill rows double up to one row of full length, which is what a long prompt needs,
    and grow faster above, where several rows with cached context meet in one step. Mixed steps use
    coarser grids of blocks, because they have three dimensions.
    """

    name = "exponential"

    def keys(self, limits: Limits, cost: Cost) -> Iterable[GraphKey]:
        return self.grids(limits).keys(limits)

    def grids(self, limits: Limits) -> Grids:
        tokens = limits.step_tokens if limits.prefill_rows else 0
        return Grids(
            decode_rows=geometric(1, limits.max_num_seqs),
            decode_blocks=geometric(1, limits.decode_blocks),
            prefill_tokens=geometric(_FIRST_TOKENS, tokens),
            prefill_blocks=_context(limits),
            mixed_decode_blocks=mixed_decode_blocks(limits),
            mixed_prefill_blocks=mixed_prefill_blocks(limits),
        )


def _context(limits: Limits) -> Grid:
    first = power_of_two(-(-_FIRST_CONTEXT_TOKENS // limits.block_size))
    one_row = power_of_two(limits.blocks_per_row)
    last = limits.prefill_blocks
    fine = tuple(size for size in geometric(first, min(one_row, last)) if 5 * size <= 4 * last)
    return fine + geometric(max(first, one_row * _COARSE), last, _COARSE)


def mixed_decode_blocks(limits: Limits) -> Grid:
    """From a few blocks for every row to the most there are."""
    return geometric(limits.max_num_seqs * _COARSE, limits.decode_blocks, _COARSE)


def mixed_prefill_blocks(limits: Limits) -> Grid:
    """From one row of full length, which most steps keep within, to the most there are."""
    return geometric(power_of_two(limits.blocks_per_row), limits.prefill_blocks, _COARSE**2)
