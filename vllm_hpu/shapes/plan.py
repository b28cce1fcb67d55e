"""The shape plan: one function from a step to its key, and the set of keys that follows from it."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Protocol, Self

from vllm_hpu.shapes.cost import CostModel, padded_work
from vllm_hpu.shapes.cover import Cell, Cover
from vllm_hpu.shapes.grid import Grid, geometric
from vllm_hpu.shapes.key import GraphKey, decode_key, prefill_key
from vllm_hpu.shapes.kinds import Sizes, kind_of, largest_sizes, sizes_of
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.model import ModelShape
from vllm_hpu.shapes.reach import Box, decode_step, mixed_step, prefill_step
from vllm_hpu.shapes.step import Step

Cost = Callable[[GraphKey], float]

_KINDS = ("decode", "prefill", "mixed")


class PlanSettings(Protocol):
    """What the user chose: see ``vllm_hpu.settings``."""

    @property
    def bucketing_strategy(self) -> str: ...

    @property
    def bucket_variables(self) -> Mapping[str, int]: ...

    @property
    def bucketing_file(self) -> str: ...

    @property
    def traffic_profile(self) -> str: ...

    @property
    def plan_budget(self) -> str: ...

    @property
    def plan_cost(self) -> str: ...


class Strategy(Protocol):
    """Chooses the keys that steps may have; everything else about a plan follows from them."""

    @property
    def name(self) -> str: ...

    def keys(self, limits: Limits, cost: Cost) -> Iterable[GraphKey]:
        """At least the largest key of every kind; ``cost`` is what a launch of a key costs."""
        ...


class ShapePlan:
    """Maps every step to a key, and knows all the keys that can come of it.

    >>> plan = ShapePlan(Limits(4, 64, 256, 16), Exponential())
    >>> str(plan.dispatch(Step(3, 3, 5, 0, 0, 0)))
    'decode 4 rows, 8 blocks'
    """

    def __init__(self, limits: Limits, strategy: Strategy, cost: Cost = padded_work) -> None:
        """``cost`` is what a launch of a key costs, in any unit: it orders keys.

        Raises ValueError if the keys of ``strategy`` do not cover the largest steps.
        """
        self.limits = limits
        self.strategy = strategy
        self.cost = cost
        self.row_buckets: Grid = geometric(1, limits.max_num_seqs)
        chosen = sorted(set(strategy.keys(limits, cost)), key=lambda key: (cost(key), key))
        # Steps with cached context, with prefill but without, and with decode rows only.
        self._covers: dict[str, Cover] = {}
        for name, largest in largest_sizes(limits).items():
            entries = [(sizes_of(key), key) for key in chosen if kind_of(key) == name]
            if entries:
                self._covers[name] = Cover(entries)
            if not entries or self._covers[name].find(largest) is None:
                raise ValueError(
                    f"No {name} key of the strategy {strategy.name} covers {largest}, the largest "
                    "sizes within the limits. Correct the strategy."
                )

    @classmethod
    def from_settings(
        cls, limits: Limits, settings: PlanSettings, model: ModelShape | None = None
    ) -> Self:
        """The plan of the user's strategy; without a ``model``, launches cost ``padded_work``.

        Raises ConfigurationError for bucket variables that contradict each other or ``limits``,
        and for files that are missing or wrong.
        """
        from vllm_hpu.shapes.strategies import strategy_named

        strategy = strategy_named(
            settings.bucketing_strategy,
            settings.bucket_variables,
            file=settings.bucketing_file,
            profile=settings.traffic_profile,
            budget=settings.plan_budget,
        )
        if model is None:
            return cls(limits, strategy)
        costs = CostModel(model, limits.block_size, limits.query_len)
        by_time = settings.plan_cost == "time"
        return cls(limits, strategy, costs.price if by_time else costs.operations)

    def dispatch(self, step: Step) -> GraphKey:
        """The key ``step`` is launched with: the cheapest of those that cover it.

        A step without rows maps to the cheapest decode key. A step with more blocks than the plan
        reaches up to gets a key outside it. Raises ValueError for a step larger than the limits
        allow.
        """
        name = kind_of(step)
        key = self._covers[name].find(sizes_of(step)) if name in self._covers else None
        if key is None:
            key = self._outside(step)
        if step.tokens > key.tokens:
            raise ValueError(
                f"A step has {step.decode_tokens} tokens in {step.decode_rows} decode rows, more "
                f"than {self.limits.query_len} each. Rows with more tokens are prefill rows."
            )
        return key

    def _outside(self, step: Step) -> GraphKey:
        """A key for more blocks than planned: doubled until they fit, so that few such keys occur.

        Raises ValueError for more than the limits allow.
        """
        of = self.limits
        if not step.prefill_rows:
            rows, blocks = self._covers["decode"].axes
            return decode_key(
                of,
                _ceiling("decode rows", step.decode_rows, rows),
                _ceiling("decode blocks", step.decode_blocks, blocks, of.all_decode_blocks),
            )
        name = kind_of(step)
        tokens = _ceiling("tokens", step.tokens, self._axis(name, 0))
        decode = context = 0
        if step.decode_rows:
            axis = self._axis(name, 1)
            decode = _ceiling("decode blocks", step.decode_blocks, axis, of.all_decode_blocks)
        if step.prefill_blocks:
            axis = self._axis(name, 2)
            context = _ceiling("prefill blocks", step.prefill_blocks, axis, of.all_prefill_blocks)
        return prefill_key(of, tokens, decode, context)

    def _axis(self, name: str, dimension: int) -> Sizes:
        return self._covers[name].axes[dimension] if name in self._covers else ()

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
        found = sorted(self._witness_of, reverse=True)
        covering = _uncontained(found)
        first = set(covering)
        rest = [key for key in found if key not in first]
        rest.sort(key=lambda key: _KINDS.index(key.kind))
        return (*covering, *rest)

    @cached_property
    def covering(self) -> tuple[GraphKey, ...]:
        """The keys no other key contains: with these alone every step has a graph."""
        return _uncontained(sorted(self.keys, reverse=True))

    def __contains__(self, key: object) -> bool:
        return key in self._witness_of

    def witness(self, key: GraphKey) -> Step:
        """A step that dispatches to ``key``. Raises KeyError if the plan has no such key."""
        return self._witness_of[key]

    @cached_property
    def _witness_of(self) -> dict[GraphKey, Step]:
        """The image of dispatch: keys with a cell that a step can reach, and the largest such."""
        found: dict[GraphKey, Step] = {}
        for cover in self._covers.values():
            for cell in cover.cells():
                if cell.key not in found:
                    step = _step_in(self.limits, cell)
                    if step is not None:
                        found[cell.key] = step
        return found

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
        lines = [f"Shape plan: {len(self.keys)} graphs, strategy {self.strategy.name}"]
        for kind in _KINDS:
            keys = [key for key in self.keys if key.kind == kind]
            if not keys:
                continue
            sizes = {
                "rows": [key.decode_rows for key in keys if kind == "decode"],
                "tokens": [key.tokens for key in keys if kind != "decode"],
                "decode blocks": [key.decode_blocks for key in keys if kind != "prefill"],
                "prefill blocks": [key.prefill_blocks for key in keys if kind != "decode"],
            }
            listed = "; ".join(f"{name} {_listed(of)}" for name, of in sizes.items() if of)
            lines.append(f"  {kind:<8}{len(keys):>6}  {listed}")
        return "\n".join(lines)


def _step_in(limits: Limits, cell: Cell) -> Step | None:
    """A step inside ``cell``, or None if there is none; one with decode rows if possible."""
    bounds = [(max(0, low), high) for low, high in zip(cell.low, cell.high, strict=True)]
    nothing = (0, 0)
    if not cell.key.has_prefill:
        rows, blocks = bounds
        return decode_step(limits, Box(rows, blocks, nothing, None))
    tokens, blocks, *cached = bounds
    context = cached[0] if cached else None
    step = mixed_step(limits, Box(nothing, blocks, tokens, context)) if blocks[1] else None
    if step is None and cell.low[1] < 0:
        step = prefill_step(limits, Box(nothing, nothing, tokens, context))
    return step


def _uncontained(keys: list[GraphKey]) -> tuple[GraphKey, ...]:
    """The keys of ``keys`` (largest first) that no other one contains."""
    largest: list[GraphKey] = []
    for key in keys:
        if not any(other.contains(key) for other in largest):
            largest.append(key)
    return tuple(sorted(largest, key=lambda key: _KINDS.index(key.kind)))


def _ceiling(name: str, size: int, axis: Sizes, possible: int = 0) -> int:
    """The smallest size of ``axis``, or doubled beyond it up to ``possible``, that holds ``size``.

    Raises ValueError if there is none.
    """
    end = axis[-1] if axis else 0
    beyond = geometric(2 * end, possible) if possible > end else ()
    for found in (*axis, *beyond):
        if found >= size:
            return found
    raise ValueError(
        f"A step has {size} {name}, more than any step within the limits ({max(end, possible)}). "
        "The limits of the shape plan and those of the scheduler differ."
    )


def _listed(sizes: Iterable[int]) -> str:
    shown = [str(size) for size in sorted(set(sizes))]
    if len(shown) > 12:
        shown = [*shown[:5], "...", *shown[-3:]]
    return ", ".join(shown)
