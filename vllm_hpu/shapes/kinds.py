"""Three kinds of steps and keys, which never meet, and the sizes that order those of a kind."""

from vllm_hpu.shapes.key import GraphKey, decode_key, prefill_key
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.step import Step

Sizes = tuple[int, ...]


def kind_of(what: Step | GraphKey) -> str:
    """Steps and keys of different kinds never meet; decode rows may be missing from a prefill."""
    prefill = what.has_prefill if isinstance(what, GraphKey) else what.prefill_rows > 0
    if not prefill:
        return "decode"
    return "cached prefill" if what.prefill_blocks else "prefill"


def sizes_of(what: Step | GraphKey) -> Sizes:
    """What decides whether a key of the same kind covers a step.

    Decode rows of a step with prefill rows are not listed: its keys have as many as fit.
    """
    kind = kind_of(what)
    if kind == "decode":
        return what.decode_rows, what.decode_blocks
    if kind == "prefill":
        return what.tokens, what.decode_blocks
    return what.tokens, what.decode_blocks, what.prefill_blocks


def largest_sizes(limits: Limits) -> dict[str, Sizes]:
    """The sizes of the largest steps of every name that can occur."""
    largest: dict[str, Sizes] = {"decode": (limits.max_num_seqs, limits.decode_blocks)}
    if limits.prefill_rows:
        largest["prefill"] = limits.step_tokens, limits.mixed_blocks
        largest["cached prefill"] = *largest["prefill"], limits.prefill_blocks
    return largest


def key_of(limits: Limits, kind: str, sizes: Sizes) -> GraphKey:
    """The key that has ``sizes``, which are those of ``sizes_of`` for its ``kind``."""
    if kind == "decode":
        return decode_key(limits, *sizes)
    tokens, blocks, *context = sizes
    return prefill_key(limits, tokens, blocks, context[0] if context else 0)


def largest_keys(limits: Limits) -> list[GraphKey]:
    """A key of every kind that takes all its steps."""
    return [key_of(limits, kind, sizes) for kind, sizes in largest_sizes(limits).items()]
