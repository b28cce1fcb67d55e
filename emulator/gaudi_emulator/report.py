"""A trace as tables for a person, or as a plot. All times of a card are predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .roofline import ENGINES, Peaks
from .trace_file import Group, Summary

__all__ = ["as_json", "as_text", "plot"]

_HEADINGS = (
    "what", "launches", "ops", "GFLOP", "MB", *(f"{engine} ms" for engine in ENGINES),
    "predicted ms", "bound by",
)  # fmt: skip


def _engine_ms(group: Group, peaks: Peaks) -> dict[str, float]:
    totals = dict.fromkeys(ENGINES, 0.0)
    for cost, times in group.costs.items():
        for engine, seconds in peaks.engine_seconds(cost).items():
            totals[engine] += seconds * times * 1e3
    return totals


def _predicted_ms(group: Group, peaks: Peaks) -> float:
    return sum(peaks.predicted_seconds(c) * times for c, times in group.costs.items()) * 1e3


def _sorted(summary: Summary, peaks: Peaks) -> list[Group]:
    return sorted(summary.groups.values(), key=lambda g: -_predicted_ms(g, peaks))


def _bound(engine_ms: dict[str, float]) -> str:
    return max(ENGINES, key=lambda engine: engine_ms[engine])


def _row(name: str, groups: Sequence[Group], peaks: Peaks) -> list[str]:
    engine_ms = dict.fromkeys(ENGINES, 0.0)
    for group in groups:
        for engine, ms in _engine_ms(group, peaks).items():
            engine_ms[engine] += ms
    return [
        name,
        str(sum(g.launches for g in groups)),
        str(sum(g.operators for g in groups)),
        f"{sum(g.cost.flops for g in groups) / 1e9:.3f}",
        f"{sum(g.cost.bytes for g in groups) / 1e6:.2f}",
        *(f"{engine_ms[engine]:.4g}" for engine in ENGINES),
        f"{sum(_predicted_ms(g, peaks) for g in groups):.4g}",
        _bound(engine_ms) if groups else "",
    ]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place in (0, len(row) - 1) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _host_fallbacks(summary: Summary) -> Counter[str]:
    """Operators that ran on the host -> how often; traces of older versions do not say."""
    total: Counter[str] = Counter()
    for counted in summary.counters:
        total.update(counted.get("host_fallbacks", {}))
    return total


def _facts(summary: Summary, peaks: Peaks) -> list[str]:
    lines = []
    for direction in ("host to card", "card to host"):
        count, size = summary.copies.get(direction, (0, 0))
        ms = size / peaks.host_bytes_per_s * 1e3
        lines.append(f"copies, {direction}: {count}, {size} bytes, predicted {ms:.4g} ms")
    waits = ", ".join(f"{what} {n}" for what, n in summary.host_waits.most_common())
    lines.append(
        f"host synchronisations: {summary.host_waits.total()}" + f" ({waits})" * bool(waits)
    )
    fallbacks = _host_fallbacks(summary)
    names = ", ".join(f"{name} {count}" for name, count in fallbacks.most_common())
    lines.append(f"host fallbacks: {fallbacks.total()}" + f" ({names})" * bool(names))
    number = sum(count for count, _ in summary.compilations.values())
    kinds = ", ".join(
        f"{kind} {count} in {us / 1e6:.3f} s"
        for kind, (count, us) in sorted(summary.compilations.items())
    )
    lines.append(f"compilations: {number}" + f" ({kinds} of this host)" * bool(kinds))
    hits = sum(sum(counted["recipe_hits"].values()) for counted in summary.counters)
    lines.append(f"recipes found instead of compiled: {hits}")
    if summary.without_formula:
        names = ", ".join(sorted(summary.without_formula))
        lines.append(f"NOT in the sums, no cost formula: {names}")
    if not summary.complete:
        missing = summary.processes - len(summary.counters)
        lines.append(f"{missing} of {summary.processes} processes did not end their trace.")
    return lines


def as_text(summary: Summary, peaks: Peaks, top: int) -> str:
    """Tables: the `top` groups that take longest, the rest as one, and what else costs time."""
    groups = _sorted(summary, peaks)
    rows: list[Sequence[str]] = [_HEADINGS]
    rows += [_row(group.name, [group], peaks) for group in groups[:top]]
    if groups[top:]:
        rows.append(_row(f"{len(groups) - top} others", groups[top:], peaks))
    rows.append(_row("all", groups, peaks))
    head = (
        f"PREDICTION for {peaks.name} from published peaks and an assumed "
        f"{peaks.launch_seconds * 1e6:g} us for each launch; no card has measured it."
    )
    return "\n".join([head, "", *_table(rows), "", *_facts(summary, peaks)])


def as_json(summary: Summary, peaks: Peaks) -> dict[str, Any]:
    """The same for programs."""
    return {
        "prediction_for": peaks.name,
        "launch_us": peaks.launch_seconds * 1e6,
        "launches": [
            {
                "kind": group.kind,
                "name": group.name,
                "launches": group.launches,
                "operators": group.operators,
                **asdict(group.cost),
                "engine_ms": _engine_ms(group, peaks),
                "predicted_ms": _predicted_ms(group, peaks),
                "bound": _bound(_engine_ms(group, peaks)),
            }
            for group in _sorted(summary, peaks)
        ],
        "copies": {
            direction: {"count": count, "bytes": size}
            for direction, (count, size) in summary.copies.items()
        },
        "host_waits": dict(summary.host_waits),
        "host_fallbacks": dict(_host_fallbacks(summary)),
        "compilations": {
            kind: {"count": count, "us": us} for kind, (count, us) in summary.compilations.items()
        },
        "counters": summary.counters,
        "without_formula": sorted(summary.without_formula),
        "complete": summary.complete,
    }


def plot(summary: Summary, peaks: Peaks, top: int, path: Path) -> None:
    """Draw what each engine would need for the `top` groups.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("--plot needs matplotlib: pip install 'gaudi-emulator[plot]'") from error
    groups = _sorted(summary, peaks)[:top][::-1]
    figure = Figure(figsize=(9, 1.5 + 0.45 * len(groups)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(ENGINES)
    for place, engine in enumerate(ENGINES):
        values = [_engine_ms(group, peaks)[engine] for group in groups]
        offsets = [row + 0.4 - height * (place + 0.5) for row in range(len(groups))]
        axes.barh(offsets, values, height, label=engine)
    axes.set_yticks(range(len(groups)), [f"{g.name} x{g.launches}" for g in groups])
    axes.set_xlabel(f"ms that each engine would need, PREDICTED for {peaks.name}")
    axes.legend()
    figure.savefig(path)
