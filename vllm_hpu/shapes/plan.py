"""The shape plan: one function from a step to its key, and the set of keys that follows from it."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Protocol, Self

from vllm_hpu.shapes.grid import Grid, Grids, geometric
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.reach import Box, decode_step, mixed_step, prefill_step
from vllm_hpu.shapes.step import Step

_KINDS = ("decode", "prefill", "mixed")


class PlanSettings(Protocol):
    """What the user chose: see ``vllm_hpu.settings``."""

    @property
    def bucketing_strategy(self) -> str: ...

    @property
    def bucket_variables(self) -> Mapping[str, int]: ...


class Strategy(Protocol):
    """Chooses the grids; everything else about a plan follows from them and the limits."""

    @property
    def name(self) -> str: ...

    def grids(self, limits: Limits) -> Grids: ...


class _Axis:
    """One dimension: the planned sizes, and doublings beyond them up to what could ever occur."""

    def __init__(self, name: str, planned: Grid, needed: int, possible: int) -> None:
        if (planned[-1] if planned else 0) != needed:
            raise ValueError(
                f"The {name} grid {planned} does not end at {needed}, the most the limits need. "
                "Correct the strategy that made it."
            )
        self.name = name
        self.planned = planned
        self.sizes = planned + geometric(2 * needed, possible) if possible > needed else planned

    def index(self, size: int) -> int:
        place = bisect_left(self.sizes, size)
        if place == len(self.sizes):
            raise ValueError(
                f"A step has {size} {self.name}, more than any step within the limits "
                f"({self.sizes[-1] if self.sizes else 0}). The limits of the shape plan and those "
                "of the scheduler differ."
            )
        return place

    def cells(self) -> Iterator[tuple[int, int]]:
        """(above, up to) of every planned size."""
        return zip((0, *self.planned), self.planned, strict=False)


class ShapePlan:
    """Maps every step to a key, and knows all the keys that can come of it.

    >>> plan = ShapePlan(Limits(4, 64, 256, 16), Exponential())
    >>> str(plan.dispatch(Step(3, 3, 5, 0, 0, 0)))
    'decode 4 rows, 8 blocks'
    """

    def __init__(self, limits: Limits, strategy: Strategy) -> None:
        self.limits = limits
        self.strategy = strategy
        grids = strategy.grids(limits)
        tokens = limits.step_tokens if limits.prefill_rows else 0
        decode = limits.decode_blocks, limits.all_decode_blocks
        prefill = limits.prefill_blocks, limits.all_prefill_blocks
        rows = limits.max_num_seqs
        self._rows = _Axis("decode rows", grids.decode_rows, rows, rows)
        self._blocks = _Axis("decode blocks", grids.decode_blocks, *decode)
        self._tokens = _Axis("tokens", grids.prefill_tokens, tokens, tokens)
        self._context = _Axis("prefill blocks", grids.prefill_blocks, *prefill)
        self._mixed_blocks = _Axis("decode blocks", grids.mixed_decode_blocks, *decode)
        self._mixed_context = _Axis("prefill blocks", grids.mixed_prefill_blocks, *prefill)
        self.row_buckets: Grid = geometric(1, rows)
        self._known: dict[tuple[int, int, int, int], GraphKey] = {}

    @classmethod
    def from_settings(cls, limits: Limits, settings: PlanSettings) -> Self:
        """The plan of the user's strategy.

        Raises ConfigurationError for bucket variables that contradict each other or ``limits``.
        """
        from vllm_hpu.shapes.strategies import strategy_named

        strategy = strategy_named(settings.bucketing_strategy, settings.bucket_variables)
        return cls(limits, strategy)

    def dispatch(self, step: Step) -> GraphKey:
        """The key ``step`` is launched with: in every dimension the smallest size that holds it.

        A step without rows maps to the smallest decode key. Raises ValueError for a step larger
        than the limits allow.
        """
        if not step.prefill_rows:
            rows = self._rows.index(step.decode_rows)
            blocks = self._blocks.index(step.decode_blocks)
            cell = (0, rows, blocks, 0)
        elif not step.decode_rows:
            tokens = self._tokens.index(step.tokens)
            context = self._context.index(step.prefill_blocks) + 1 if step.prefill_blocks else 0
            cell = (1, tokens, 0, context)
        else:
            tokens = self._tokens.index(step.tokens)
            blocks = self._mixed_blocks.index(step.decode_blocks)
            context = (
                self._mixed_context.index(step.prefill_blocks) + 1 if step.prefill_blocks else 0
            )
            cell = (2, tokens, blocks, context)
        key = self._known.get(cell)
        if key is None:
            key = self._known[cell] = self._key(*cell)
        if step.decode_tokens > key.tokens:
            raise ValueError(
                f"A step has {step.decode_tokens} tokens in {step.decode_rows} decode rows, more "
                f"than {self.limits.query_len} each. Rows with more tokens are prefill rows."
            )
        return key

    def _key(self, kind: int, first: int, blocks: int, context: int) -> GraphKey:
        limits = self.limits
        if kind == 0:
            rows = self._rows.sizes[first]
            tokens = min(rows * limits.query_len, limits.max_num_batched_tokens)
            return GraphKey(tokens, rows, self._blocks.sizes[blocks], False, 0)
        tokens = self._tokens.sizes[first]
        if kind == 1:
            return GraphKey(tokens, 0, 0, True, self._context.sizes[context - 1] if context else 0)
        return GraphKey(
            tokens,
            min(limits.max_num_seqs, tokens),
            self._mixed_blocks.sizes[blocks],
            True,
            self._mixed_context.sizes[context - 1] if context else 0,
        )

    @property
    def max_tokens(self) -> int:
        """Tokens of the largest key: what buffers of a step must hold."""
        return max(key.tokens for key in self.keys)

    @cached_property
    def keys(self) -> tuple[GraphKey, ...]:
        """Every key a step can have, in the order to warm up.

        First the covering set, then decode, prefill and mixed keys, each from large to small, so
        that the most memory is needed first.
        """
        found = sorted(self._reachable(), reverse=True)
        covering = _largest(found)
        rest = [key for key in found if key not in set(covering)]
        rest.sort(key=lambda key: _KINDS.index(key.kind))
        return (*covering, *rest)

    @cached_property
    def covering(self) -> tuple[GraphKey, ...]:
        """The keys no other key contains: with these alone every step has a graph."""
        return _largest(sorted(self.keys, reverse=True))

    def __contains__(self, key: object) -> bool:
        return key in self._planned

    @cached_property
    def _planned(self) -> frozenset[GraphKey]:
        return frozenset(self.keys)

    def _reachable(self) -> Iterator[GraphKey]:
        """The image of dispatch: the key of a witness for every cell of the grids that has one."""
        for step in self._witnesses():
            yield self.dispatch(step)

    def _witnesses(self) -> Iterator[Step]:
        limits = self.limits
        nothing = (0, 0)
        for rows in self._rows.cells():
            for blocks in self._blocks.cells():
                step = decode_step(limits, Box(rows, blocks, nothing, None))
                if step is not None:
                    yield step
        for tokens in self._tokens.cells():
            for context in (None, *self._context.cells()):
                step = prefill_step(limits, Box(nothing, nothing, tokens, context))
                if step is not None:
                    yield step
            for blocks in self._mixed_blocks.cells():
                for context in (None, *self._mixed_context.cells()):
                    step = mixed_step(limits, Box(nothing, blocks, tokens, context))
                    if step is not None:
                        yield step

    def witness(self, key: GraphKey) -> Step:
        """A step that dispatches to ``key``. Raises KeyError if the plan has no such key."""
        return self._witness_of[key]

    @cached_property
    def _witness_of(self) -> dict[GraphKey, Step]:
        return {self.dispatch(step): step for step in self._witnesses()}

    def rows(self, number: int) -> int:
        """``number`` of rows padded to a row bucket: what per-row work such as sampling runs on."""
        place = bisect_left(self.row_buckets, number)
        if place == len(self.row_buckets):
            raise ValueError(
                f"A step has {number} rows, more than max_num_seqs ({self.limits.max_num_seqs}). "
                "The limits of the shape plan and those of the scheduler differ."
            )
        return self.row_buckets[place]

    def describe(self) -> str:
        """A table for the log: how many graphs of which kind, and the sizes they combine."""
        counts = dict.fromkeys(_KINDS, 0)
        for key in self.keys:
            counts[key.kind] += 1
        grids = {
            "decode": f"rows {_listed(self._rows)}; blocks {_listed(self._blocks)}",
            "prefill": f"tokens {_listed(self._tokens)}; blocks 0, {_listed(self._context)}",
            "mixed": f"tokens as prefill; decode blocks {_listed(self._mixed_blocks)}; "
            f"prefill blocks 0, {_listed(self._mixed_context)}",
        }
        lines = [f"Shape plan: {len(self.keys)} graphs, strategy {self.strategy.name}"]
        lines += [f"  {kind:<8}{counts[kind]:>6}  {grids[kind]}" for kind in _KINDS if counts[kind]]
        return "\n".join(lines)


def _largest(keys: list[GraphKey]) -> tuple[GraphKey, ...]:
    """The keys of ``keys`` (largest first) that no other one contains."""
    largest: list[GraphKey] = []
    for key in keys:
        if not any(_contains(other, key) for other in largest):
            largest.append(key)
    return tuple(sorted(largest, key=lambda key: _KINDS.index(key.kind)))


def _contains(outer: GraphKey, inner: GraphKey) -> bool:
    return (
        outer.kind == inner.kind
        and outer.tokens >= inner.tokens
        and outer.decode_rows >= inner.decode_rows
        and outer.decode_blocks >= inner.decode_blocks
        and outer.prefill_blocks >= inner.prefill_blocks
        and (outer.prefill_blocks > 0) == (inner.prefill_blocks > 0)
    )


def _listed(axis: _Axis) -> str:
    sizes = [str(size) for size in axis.planned]
    if len(sizes) > 12:
        sizes = [*sizes[:5], "...", *sizes[-3:]]
    return ", ".join(sizes)
