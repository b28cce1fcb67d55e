"""Measurements and the table that ``make bench`` prints."""

from __future__ import annotations

import statistics
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


def paired_ratio(record: dict[str, Any], name: str, base: str, batch: int) -> float | None:
    """Median over the rounds of ``name``'s tokens/s to ``base``'s in the same round.

    None unless both ran. Pairing takes out what slows a whole round down.
    """
    rates = {r["contender"]: r["tokens_per_s"] for r in record["results"] if r["batch"] == batch}
    if name not in rates or base not in rates:
        return None
    return statistics.median(a / b for a, b in zip(rates[name], rates[base], strict=True))


def table(record: dict[str, Any], bases: list[str]) -> str:
    """The record as text: what was run, then one line per contender and batch size."""
    headings = "".join(f"{'to ' + base:>18}" for base in bases)
    lines = [
        f"model {record['model']}, bfloat16, {record['prompt_tokens']} tokens in, "
        f"{record['new_tokens']} out, {record['threads']} threads, "
        f"median of {record['rounds']} interleaved rounds (lowest to highest); "
        "ratios: median of each round's",
        "",
        f"{'contender':18} {'batch':>5} {'tokens/s':>9} {'range':>15}{headings} {'same text':>9}",
    ]
    for result in record["results"]:
        rates = result["tokens_per_s"]
        found = [paired_ratio(record, result["contender"], b, result["batch"]) for b in bases]
        ratios = "".join(f"{'-' if ratio is None else f'{ratio:.2f}':>18}" for ratio in found)
        same = result["same_tokens_as_baseline"]
        lines.append(
            f"{result['contender']:18} {result['batch']:5d} {result['median_tokens_per_s']:9.1f} "
            f"{min(rates):7.1f}-{max(rates):7.1f}{ratios} "
            f"{'-' if same is None else f'{same:.0%}':>9}"
        )
    lines.append("")
    for name, about in record["contenders"].items():
        lines.append(
            f"{name}: {about['version']}, torch {about['torch']}, "
            f"device {about['device']}, mode {about['mode']}"
        )
    return "\n".join(lines)
