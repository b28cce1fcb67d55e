"""Measurements and the table that ``make bench`` prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Measurement:
    """The rounds of one contender at one batch size."""

    rates: list[float] = field(default_factory=list)  # generated tokens per second, one per round
    tokens: list[list[list[int]]] = field(default_factory=list)  # round, prompt, token

    def add(self, seconds: float, tokens: list[list[int]]) -> None:
        self.rates.append(sum(len(row) for row in tokens) / seconds)
        self.tokens.append(tokens)

    def agreement(self, other: Measurement | None) -> float | None:
        """Share of prompts whose tokens all equal the other's, 0 to 1; None without the other.

        In bfloat16, contenders that sum in another order part ways at near-ties, so this is a
        check that they do the same work, not a test of correctness.
        """
        if other is None:
            return None
        mine = [row for tokens in self.tokens for row in tokens]
        theirs = [row for tokens in other.tokens for row in tokens]
        equal = sum(a == b for a, b in zip(mine, theirs, strict=True))
        return round(equal / len(mine), 3)


def table(record: dict[str, Any], baseline: str) -> str:
    """The record as text: what was run, then one line per contender and batch size."""
    medians = {(r["contender"], r["batch"]): r["median_tokens_per_s"] for r in record["results"]}
    lines = [
        f"model {record['model']}, bfloat16, {record['prompt_tokens']} tokens in, "
        f"{record['new_tokens']} out, {record['threads']} threads, "
        f"median of {record['rounds']} interleaved rounds (lowest to highest)",
        "",
        f"{'contender':18} {'batch':>5} {'tokens/s':>9} {'range':>15} {'to ' + baseline:>12} "
        f"{'same text':>9}",
    ]
    for result in record["results"]:
        rates = result["tokens_per_s"]
        base = medians.get((baseline, result["batch"]))
        ratio = f"{result['median_tokens_per_s'] / base:.2f}" if base else "-"
        same = result["same_tokens_as_baseline"]
        lines.append(
            f"{result['contender']:18} {result['batch']:5d} {result['median_tokens_per_s']:9.1f} "
            f"{min(rates):7.1f}-{max(rates):7.1f} {ratio:>12} "
            f"{'-' if same is None else f'{same:.0%}':>9}"
        )
    lines.append("")
    for name, about in record["contenders"].items():
        lines.append(
            f"{name}: {about['version']}, torch {about['torch']}, "
            f"device {about['device']}, mode {about['mode']}"
        )
    return "\n".join(lines)
