"""Linear grids: equal steps between a minimum and a maximum, each set by a variable."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.shapes.grid import Grid, Grids, geometric
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.plan import Cost
from vllm_hpu.shapes.strategies.exponential import mixed_decode_blocks, mixed_prefill_blocks


@dataclass(frozen=True)
class Range:
    """Minimum, step and maximum of one dimension, and the variables that set them."""

    prefix: str  # for example VLLM_DECODE_BS_BUCKET
    minimum: int
    step: int
    maximum: int

    @property
    def first_multiple(self) -> int:
        """Where the ramp ends: the first multiple of the step that is no less than the minimum."""
        return max(1, -(-self.minimum // self.step)) * self.step

    def sizes(self) -> Grid:
        """The minimum doubled up to the step, then multiples of the step, and the maximum.

        The ramp and the multiples are what ``VLLM_*_BUCKET_{MIN,STEP,MAX}`` have always meant on
        Gaudi; that the maximum is always a size closes the gap above the last multiple.
        """
        ramp = geometric(self.minimum, self.step)[:-1] if self.minimum else ()
        multiples = range(self.first_multiple, self.maximum, self.step)
        sizes = {self.minimum, *ramp, *multiples, self.maximum}
        return tuple(sorted(size for size in sizes if 0 < size <= self.maximum))


class Linear:
    """Equal steps. ``variables`` holds the bucket variables that are set, by name.

    PROMPT_QUERY sets the tokens of steps with prefill rows, PROMPT_CTX their blocks up to one row
    of full length (above, where several rows with cached context meet, sizes double), DECODE_BS the
    decode rows, DECODE_BLOCK the decode blocks. Blocks of mixed steps are as in exponential plans.
    """

    name = "linear"
    rows_step = 32  # default step of decode rows

    def __init__(self, variables: Mapping[str, int] | None = None) -> None:
        self.variables = dict(variables or {})

    def keys(self, limits: Limits, cost: Cost) -> Iterable[GraphKey]:
        return self.grids(limits).keys(limits)

    def grids(self, limits: Limits) -> Grids:
        size = limits.block_size
        # The context of the longest prompt: its last block is computed, not cached.
        context = max(1, (limits.max_model_len - size) // size)
        tokens: Grid = ()
        blocks: Grid = ()
        if limits.prefill_rows:
            query = self._range(
                "PROMPT_QUERY", (size, size), limits.step_tokens, "--max-num-batched-tokens"
            )
            ctx = self._range("PROMPT_CTX", (0, 1), context, "--max-model-len")
            tokens = self._sizes(query, limits)
            last = limits.prefill_blocks
            inside = tuple(value for value in self._sizes(ctx, limits) if value < last)
            blocks = inside + geometric(max((1, *(2 * value for value in inside[-1:]))), last)
        rows = self._range("DECODE_BS", (1, self.rows_step), limits.max_num_seqs, "--max-num-seqs")
        decode = self._range(
            "DECODE_BLOCK", (1, size), limits.decode_blocks, "--max-model-len or --max-num-seqs"
        )
        return Grids(
            decode_rows=self._sizes(rows, limits),
            decode_blocks=self._sizes(decode, limits),
            prefill_tokens=tokens,
            prefill_blocks=blocks,
            mixed_decode_blocks=mixed_decode_blocks(limits),
            mixed_prefill_blocks=mixed_prefill_blocks(limits),
        )

    def _sizes(self, of: Range, limits: Limits) -> Grid:
        return of.sizes()

    def _range(self, dimension: str, default: tuple[int, int], needed: int, flag: str) -> Range:
        """The range of a dimension that must reach ``needed``, which ``flag`` lowers."""
        prefix = f"VLLM_{dimension}_BUCKET"
        names = {part: f"{prefix}_{part}" for part in ("MIN", "STEP", "MAX")}
        minimum = self.variables.get(names["MIN"])
        step = self.variables.get(names["STEP"], default[1])
        maximum = self.variables.get(names["MAX"], needed)
        if step < 1:
            raise ConfigurationError(
                f"{names['STEP']} is {step}",
                "Sizes grow by it",
                "Set it to 1 or more, or unset it",
            )
        if minimum is not None and minimum < 0:
            raise ConfigurationError(
                f"{names['MIN']} is {minimum}",
                "A size cannot be negative",
                "Set it to 0 or more, or unset it",
            )
        if minimum is not None and names["MAX"] in self.variables and minimum > maximum:
            raise ConfigurationError(
                f"{names['MIN']}={minimum} is above {names['MAX']}={maximum}",
                "No size lies between them",
                "Lower the first, raise the second, or unset both",
            )
        if maximum < needed:
            raise ConfigurationError(
                f"{names['MAX']}={maximum} is below {needed}",
                f"Steps of up to {needed} can occur, and a larger one would compile while a "
                "request waits",
                f"Raise or unset {names['MAX']}, or lower {flag}",
            )
        if minimum is not None and minimum > needed:
            raise ConfigurationError(
                f"{names['MIN']}={minimum} is above {needed}, the most that a step can have",
                do=f"Lower or unset {names['MIN']}, or raise {flag}",
            )
        # A larger maximum than needed would only add sizes that no step reaches.
        return Range(prefix, min(default[0] if minimum is None else minimum, needed), step, needed)
