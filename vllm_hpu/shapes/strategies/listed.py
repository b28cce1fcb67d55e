"""Sizes from a file of buckets, as other software on Gaudi reads it."""

import ast
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.shapes.key import GraphKey, decode_key, prefill_key
from vllm_hpu.shapes.kinds import largest_keys
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.plan import Cost

_MOST = 100_000  # buckets of one line: more is a slip of the pen
_FORM = (
    "A line is (batch, query, context): each a whole number, a list of them, or range(first, end, "
    "step)"
)
_REMEDY = "Correct the line, or unset VLLM_BUCKETING_FROM_FILE"


class Listed:
    """The buckets that a file lists, one ``(batch, query, context)`` per line.

    A bucket of ``query`` 1 is ``batch`` decode rows with ``context`` KV blocks together. Any other
    one is ``batch`` prompts of ``query`` tokens with ``context`` cached blocks each: here a flat
    step of ``batch * query`` tokens, alone and together with decode rows that have any number of
    blocks. Empty lines and what follows ``#`` are skipped. Buckets beyond the limits are left out;
    the keys that cover the largest steps are always there.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError, naming file and line, for what is not as described."""
        self.name = f"from file {path}"
        self.buckets: tuple[tuple[int, int, int], ...] = tuple(_read(path))

    def keys(self, limits: Limits, cost: Cost) -> Iterable[GraphKey]:
        found = set(largest_keys(limits))
        for batch, query, context in self.buckets:
            if query == 1:
                blocks = min(context, batch * limits.blocks_per_row, limits.decode_blocks)
                if batch <= limits.max_num_seqs and blocks:
                    found.add(decode_key(limits, batch, blocks))
                continue
            tokens = batch * query
            of_row = context + -(-query // limits.block_size)
            blocks = batch * of_row if context else 0
            if tokens <= limits.step_tokens and blocks <= limits.prefill_blocks:
                found.add(prefill_key(limits, tokens, 0, blocks))
                if limits.mixed_blocks:
                    found.add(prefill_key(limits, tokens, limits.mixed_blocks, blocks))
        return found


def _read(path: Path) -> Iterator[tuple[int, int, int]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The file of buckets {path} cannot be read",
            str(error),
            "Correct or unset VLLM_BUCKETING_FROM_FILE",
        ) from None
    found = False
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if text:
            found = True
            yield from _buckets(text, f"{path}:{number}")
    if not found:
        raise ConfigurationError(f"{path}:1: no bucket in the whole file", _FORM, _REMEDY)


def _buckets(text: str, place: str) -> Iterator[tuple[int, int, int]]:
    try:
        parsed = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConfigurationError(f"{place}: {text!r} is not understood", _FORM, _REMEDY) from None
    if not isinstance(parsed, ast.Tuple) or len(parsed.elts) != 3:
        raise ConfigurationError(f"{place}: {text!r} is not three sizes", _FORM, _REMEDY)
    sizes = []
    names = (("batch", 1), ("query", 1), ("context", 0))
    for (name, least), item in zip(names, parsed.elts, strict=True):
        values = _values(item)
        if not values or min(values) < least:
            raise ConfigurationError(
                f"{place}: the {name} {ast.unparse(item)!r} is not understood",
                f"{_FORM}. The least {name} is {least}",
                _REMEDY,
            )
        sizes.append(values)
    if len(sizes[0]) * len(sizes[1]) * len(sizes[2]) > _MOST:
        raise ConfigurationError(
            f"{place}: {text!r} are more than {_MOST} buckets",
            "Each would be a graph to compile",
            "Choose larger steps, or unset VLLM_BUCKETING_FROM_FILE",
        )
    batches, queries, contexts = sizes
    yield from product(batches, queries, contexts)


def _values(item: ast.expr) -> list[int]:
    """The numbers ``item`` stands for; none if it stands for anything else."""
    if isinstance(item, ast.List):
        return _numbers(item.elts)
    if isinstance(item, ast.Call):
        given = _numbers(item.args)
        plain = isinstance(item.func, ast.Name) and item.func.id == "range" and not item.keywords
        if not plain or not 1 <= len(given) <= 3 or given[2:] == [0]:
            return []
        span = range(*given)
        return list(span[: _MOST + 1])
    return _numbers([item])


def _numbers(items: list[ast.expr]) -> list[int]:
    """What ``items`` say if all of them are whole numbers, else nothing."""
    found = []
    for item in items:
        try:
            value = ast.literal_eval(item)
        except ValueError:
            return []
        if type(value) is not int:
            return []
        found.append(value)
    return found
