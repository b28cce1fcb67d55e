"""How the memory of a card is shared out: arithmetic on bytes, no torch.

All that an engine needs beside its KV cache is known before the cache is allocated: measured by
``memory/measure.py``, or predicted by ``memory/predict.py``. The cache gets
what is left, but for a reserve for graphs that are compiled while serving.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Need:
    """What an engine takes of one card, in bytes.

    weights   parameters of the model, its adapters and its draft model
    buffers   inputs of steps and states of requests, block tables included
    steps     the most that a step takes at once beside these
    sampler   the same for sampling all rows
    graphs    what the graphs keep that are there before the first request
    kv_block  one block of the KV cache, all layers
    kv_least  blocks below which the longest request cannot run, the null block included
    """

    weights: int
    buffers: int
    steps: int
    sampler: int
    graphs: int
    kv_block: int
    kv_least: int

    @property
    def transient(self) -> int:
        """Most bytes taken at once while a step runs; forward and sampling follow each other."""
        return max(self.steps, self.sampler)

    @property
    def fixed(self) -> int:
        """All that is not KV cache."""
        return self.weights + self.buffers + self.transient + self.graphs

    @property
    def least(self) -> int:
        """With the smallest KV cache that can serve."""
        return self.fixed + self.kv_least * self.kv_block


@dataclass(frozen=True)
class Room:
    """Memory the engine may use, in bytes.

    usable    what may be taken: ``--gpu-memory-utilization`` of the card
    reserve   share of what is left beside the fixed parts that the KV cache leaves to graphs
              (``VLLM_GRAPH_RESERVED_MEM``)
    kv_bytes  size of the KV cache if the user chose it
    """

    usable: int
    reserve: float = 0.0
    kv_bytes: int | None = None


@dataclass(frozen=True)
class MemoryPlan:
    """How a card is shared out.

    kv        bytes of the KV cache
    reserve   bytes left to graphs that are compiled later
    missing   bytes that are not there; the engine cannot run unless this is 0
    """

    need: Need
    kv: int
    reserve: int
    missing: int

    @property
    def fits(self) -> bool:
        return self.missing == 0

    @property
    def kv_blocks(self) -> int:
        return self.kv // self.need.kv_block


def share_out(need: Need, room: Room) -> MemoryPlan:
    """Give the KV cache what is left.

    The reserve gives way to the smallest KV cache that can serve: graphs that then find no memory
    are left out of the plan, and their steps run in larger ones.
    """
    least = need.kv_least * need.kv_block
    left = room.usable - need.fixed
    if room.kv_bytes is not None:
        missing = max(0, room.kv_bytes - left)
        return MemoryPlan(need, room.kv_bytes, max(0, left - room.kv_bytes), missing)
    if left < max(1, least):
        return MemoryPlan(need, 0, 0, max(1, least) - left)
    kv = max(least, int(left * (1 - room.reserve)))
    return MemoryPlan(need, kv, left - kv, 0)


def planned_blocks(most: int, need: Need, room: Room) -> int:
    """For how many KV blocks a step can be planned, when ``need`` is that of planning ``most``.

    ``most`` if everything fits. Otherwise the number with which cache and steps fit together if
    what steps take is proportional to it, at least ``kv_least``.
    """
    plan = share_out(need, room)
    if plan.fits and (room.kv_bytes is not None or plan.kv_blocks >= most):
        return most
    if room.kv_bytes is not None:
        return max(need.kv_least, most // 2)
    left = (room.usable - need.weights - need.buffers) * (1 - room.reserve)
    both = need.kv_block + (need.transient + need.graphs) / most
    return max(need.kv_least, min(most - 1, int(left / both)))


def largest(most: int, fits: Callable[[int], bool], step: int = 1) -> int:
    """The largest multiple of ``step`` up to ``most`` that fits, or ``most`` itself; 0 for none.

    ``fits`` must hold for everything below a number for which it holds.
    """
    if most < 1 or fits(most):
        return max(0, most)
    low, high = 0, -(-most // step)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * step) else (low, middle)
    return low * step


@dataclass(frozen=True)
class Ask:
    """The limits an engine is asked for."""

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int


def ways_out(ask: Ask, block_size: int, fits: Callable[[Ask], bool]) -> list[str]:
    """Flags with which the engine would fit, each with the largest value; [] if none helps.

    First each limit alone, the others as they are. Where none alone is enough, as many rows as
    leave room for a useful length, with short steps.

    Args:
        fits: whether an engine fits; must hold for all smaller limits when it holds.
    """
    of = ask
    length = largest(
        of.max_model_len,
        lambda n: fits(Ask(n, of.max_num_seqs, of.max_num_batched_tokens)),
        block_size,
    )
    seqs = largest(
        of.max_num_seqs, lambda n: fits(Ask(of.max_model_len, n, of.max_num_batched_tokens))
    )
    tokens = largest(
        of.max_num_batched_tokens,
        lambda n: n >= of.max_num_seqs and fits(Ask(of.max_model_len, of.max_num_seqs, n)),
        block_size,
    )
    alone = {
        "--max-model-len": length,
        "--max-num-seqs": seqs,
        "--max-num-batched-tokens": tokens if tokens >= of.max_num_seqs else 0,
    }
    ways = [f"{flag} {value}" for flag, value in alone.items() if value]
    return ways or _all_lower(ask, block_size, fits)


def _all_lower(ask: Ask, block_size: int, fits: Callable[[Ask], bool]) -> list[str]:
    rows = ask.max_num_seqs
    while rows >= 1:
        tokens = min(ask.max_num_batched_tokens, max(rows, 4 * block_size))
        length = largest(ask.max_model_len, partial(_fits_long, fits, rows, tokens), block_size)
        if length:
            return [
                f"--max-model-len {length} --max-num-seqs {rows} --max-num-batched-tokens {tokens}"
            ]
        rows //= 2
    return []


def _fits_long(fits: Callable[[Ask], bool], rows: int, tokens: int, length: int) -> bool:
    return fits(Ask(length, rows, tokens))


def corrected(predicted: Need, measured: Need, expected: Need) -> Need:
    """``predicted``, for other limits than those for which ``expected`` turned out ``measured``.

    What limits do not change is taken as measured. The rest is scaled by how much more was measured
    than expected, never down, so that what is offered to the user really fits.
    """

    def scaled(name: str) -> int:
        value, was, should = (getattr(need, name) for need in (predicted, measured, expected))
        return int(value) if was <= should else -(-value * was // max(1, should))

    return Need(
        weights=measured.weights,
        buffers=scaled("buffers"),
        steps=scaled("steps"),
        sampler=scaled("sampler"),
        graphs=scaled("graphs"),
        kv_block=measured.kv_block,
        kv_least=scaled("kv_least"),
    )
