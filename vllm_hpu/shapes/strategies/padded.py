"""Padding-aware sizes: equal steps, thinned out where a larger size pads little."""

from itertools import pairwise

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.shapes.grid import Grid
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.strategies.linear import Linear, Range


class Padded(Linear):
    """Linear sizes without those that the next size can stand in for.

    A size may be left out if padding what it would have held to the next one adds at most
    ``PAD_PERCENT`` of the next size and at most ``PAD_MAX``; multiples of ``PAD_MAX`` stay. 0 % is
    the linear plan, 50 % about the exponential one. ``PAD_MAX`` is a quarter of the largest size
    unless set, for PROMPT_CTX the blocks that ``max_num_batched_tokens`` fill.
    """

    name = "padding-aware"
    rows_step = 2

    def _sizes(self, of: Range, limits: Limits) -> Grid:
        most = -(-of.maximum // 4)
        if of.prefix == "VLLM_PROMPT_CTX_BUCKET":
            most = -(-limits.max_num_batched_tokens // limits.block_size)
        most = self.variables.get(f"{of.prefix}_PAD_MAX", most)
        percent = self.variables.get(f"{of.prefix}_PAD_PERCENT", 25)
        if most < 0:
            raise ConfigurationError(
                f"{of.prefix}_PAD_MAX is {most}",
                "Padding cannot be negative",
                "Set it to 0 or more, or unset it",
            )
        if not 0 <= percent <= 50:
            raise ConfigurationError(
                f"{of.prefix}_PAD_PERCENT is {percent}",
                "At 50 percent sizes double already",
                "Set it to 0 to 50, or unset it",
            )
        kept = [size for size in of.sizes() if size < of.first_multiple]
        for size, following in pairwise(size for size in of.sizes() if size >= of.first_multiple):
            padding = following - (kept[-1] if kept else 0) - 1
            too_much = padding > most or 100 * padding > percent * following
            if too_much or (most and size % most == 0):
                kept.append(size)
        # Below the first multiple the ramp has kept the largest size already.
        return tuple(sorted({*kept, of.maximum}))
