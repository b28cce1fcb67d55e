"""The name of a graph: the padded sizes a step is launched with."""

from dataclasses import dataclass
from typing import Literal

from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.step import Step


@dataclass(frozen=True, order=True, slots=True)
class GraphKey:
    """Padded sizes of one step. A graph is compiled for exactly one key.

    tokens          tokens of the step, decode and prefill together
    decode_rows     rows that hold decode requests (0 in a step that only prefills)
    decode_blocks   KV blocks of all decode rows together
    has_prefill     whether the step has prefill rows
    prefill_blocks  KV blocks of all prefill rows together; 0 when none of them has cached context,
                    so that the keys and values of this step's own tokens are all they attend to
    """

    tokens: int
    decode_rows: int
    decode_blocks: int
    has_prefill: bool
    prefill_blocks: int

    @property
    def kind(self) -> Literal["decode", "prefill", "mixed"]:
        if not self.has_prefill:
            return "decode"
        return "mixed" if self.decode_rows else "prefill"

    def covers(self, step: Step) -> bool:
        """Whether ``step`` fits into a graph of this key.

        A key with context does not cover a step without: such a step counts no prefill blocks,
        though its rows have some, so their number is not known to fit.
        """
        return (
            step.tokens <= self.tokens
            and step.decode_rows <= self.decode_rows
            and step.decode_blocks <= self.decode_blocks
            and (step.prefill_rows > 0) == self.has_prefill
            and step.prefill_blocks <= self.prefill_blocks
            and (step.prefill_blocks > 0) == (self.prefill_blocks > 0)
        )

    def contains(self, other: "GraphKey") -> bool:
        """Whether this key covers every step that ``other`` covers."""
        return (
            other.tokens <= self.tokens
            and other.decode_rows <= self.decode_rows
            and other.decode_blocks <= self.decode_blocks
            and other.has_prefill == self.has_prefill
            and other.prefill_blocks <= self.prefill_blocks
            and (other.prefill_blocks > 0) == (self.prefill_blocks > 0)
        )

    def __str__(self) -> str:
        rows = _count(self.decode_rows, "row")
        decode = f"decode {rows}, {_count(self.decode_blocks, 'block')}"
        if not self.has_prefill:
            return decode
        context = _count(self.prefill_blocks, "block") if self.prefill_blocks else "no context"
        prefill = f"{_count(self.tokens, 'token')}, {context}"
        return f"mixed {prefill} + {decode}" if self.decode_rows else f"prefill {prefill}"


def decode_key(limits: Limits, rows: int, blocks: int) -> GraphKey:
    """The key of decode rows alone, each with as many tokens as speculation allows."""
    tokens = min(rows * limits.query_len, limits.max_num_batched_tokens)
    return GraphKey(tokens, rows, blocks, False, 0)


def prefill_key(limits: Limits, tokens: int, decode_blocks: int, prefill_blocks: int) -> GraphKey:
    """The key of a step with prefill rows; ``decode_blocks`` 0 leaves out decode rows.

    Decode rows cost little beside their blocks, so there are always as many as fit.
    """
    rows = min(limits.max_num_seqs, tokens) if decode_blocks else 0
    return GraphKey(tokens, rows, decode_blocks, True, prefill_blocks)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
