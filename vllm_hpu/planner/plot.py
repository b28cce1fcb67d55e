"""The strategies compared in a picture: padding against graphs and the time they take."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.planner.comparison import Comparison
from vllm_hpu.text import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg")

# Distinguishable without colour vision (Okabe and Ito, 2008), and by their markers.
_LOOKS = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
)
_KIND_COLOURS = {"decode": "#0072B2", "prefill": "#E69F00", "mixed": "#009E73"}
_TIMES = (
    *(1, 2, 5, 10, 20, 60),
    *(60 * minutes for minutes in (2, 5, 10, 20)),
    *(3600 * hours for hours in (1, 2, 4, 8, 24)),
    *(86400 * days for days in (2, 5, 10, 30)),
)
_COUNTS = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))
_TICKS = 8  # most on an axis, so that their labels do not touch


def draw(comparison: Comparison, file: Path) -> None:
    """Write the picture to ``file``, PNG or SVG by its suffix.

    Raises:
        ConfigurationError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError(
            "A plot needs matplotlib, and it cannot be imported",
            str(error),
            "Install it: pip install matplotlib",
        ) from None
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    _paths(left, comparison)
    _kinds(right, comparison)
    limits = comparison.question.server.limits
    figure.suptitle(
        f"{comparison.question.model.path.name} on {comparison.question.card.name}: "
        f"{limits.max_num_seqs} sequences, {limits.max_num_batched_tokens} tokens a step, "
        f"{limits.max_model_len} tokens a request",
        fontsize=11,
    )
    # The date and a random identifier would make equal pictures differ.
    metadata: dict[str, Any] = {"Date": None} if file.suffix.lower() == ".svg" else {}
    figure.savefig(file, dpi=130, metadata=metadata)


def _paths(axes: "Axes", comparison: Comparison) -> None:
    """Padding against the number of graphs: a line while warm-up goes on, its end marked."""
    per_graph = _seconds_per_graph(comparison)
    looks = dict(zip(comparison.forecasts, _LOOKS * 3, strict=False))
    for name, forecast in comparison.forecasts.items():
        colour, marker = looks[name]
        end = forecast.warm_up.graphs, 100 * forecast.padding
        path = [(graphs, 100 * padding) for graphs, padding in comparison.paths.get(name, [])]
        axes.plot(*zip(*path, end, strict=True), color=colour, linewidth=1.6)
        chosen = name == comparison.question.strategy
        axes.plot(
            *end,
            marker=marker,
            markersize=11 if chosen else 8,
            color=colour,
            markeredgecolor="black" if chosen else colour,
            linestyle="none",
            label=f"{name}: {end[0]:,} graphs, {end[1]:.0f} %" + (" (chosen)" if chosen else ""),
        )
    if comparison.budgeted is not None:
        axes.axvline(comparison.budgeted[0], color="grey", linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.set_ylim(0, 100)
    axes.set_xlabel("graphs compiled")
    axes.set_ylabel("padded share of FLOPs (%)")
    low, high = axes.get_xlim()
    counts = _ticks(_COUNTS, low, high)
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.grid(True, which="major", color="0.9")
    axes.legend(title="at the end of warm-up", loc="upper right", framealpha=1)

    def to_time(graphs: Any) -> Any:
        return graphs * per_graph

    def to_graphs(time: Any) -> Any:
        return time / per_graph

    times = axes.secondary_xaxis("top", functions=(to_time, to_graphs))
    shown = _ticks(_TIMES, low * per_graph, high * per_graph)
    times.set_xticks(shown, [_short(time) for time in shown])
    times.minorticks_off()
    word = "measured" if comparison.prices.records else "predicted"
    times.set_xlabel(f"warm-up time, {word} ({per_graph:.3g} s a graph)")


def _kinds(axes: "Axes", comparison: Comparison) -> None:
    """Operations of each strategy by kind, as multiples of those without padding."""
    forecasts = comparison.forecasts.values()
    useful = sum(kind.flops for kind in comparison.chosen.kinds)
    places = range(len(forecasts))
    bottom = [0.0] * len(forecasts)
    for part, hatch, shade in (("needed", "", 1.0), ("padding", "////", 0.35)):
        for name, colour in _KIND_COLOURS.items():
            found = [[kind for kind in one.kinds if kind.kind == name] for one in forecasts]
            needed = [sum(kind.flops for kind in kinds) / useful for kinds in found]
            padded = [sum(kind.padded_flops for kind in kinds) / useful for kinds in found]
            heights = needed
            if part == "padding":
                heights = [all_ - real for all_, real in zip(padded, needed, strict=True)]
            if not any(heights):
                continue
            axes.bar(
                places,
                heights,
                0.6,
                bottom=bottom,
                color=colour,
                alpha=shade,
                hatch=hatch,
                edgecolor="white",
                linewidth=0,
                label=f"{name}, {part}",
            )
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axes.axhline(1, color="black", linewidth=1)
    axes.set_xticks(list(places), list(comparison.forecasts))
    axes.set_xlim(-0.6, len(forecasts) - 0.4)
    axes.set_ylim(0, 1.55 * max([*bottom, 1.0]))
    axes.set_xlabel("strategy, all graphs compiled")
    axes.set_ylabel("FLOPs (1 = without padding)")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles, labels, loc="upper center", ncols=2, fontsize=8)


def _ticks(candidates: Sequence[int], low: float, high: float) -> list[int]:
    """Those of ``candidates`` between ``low`` and ``high`` that lie far enough apart."""
    ratio = (high / low) ** (1 / _TICKS)
    found: list[int] = []
    for candidate in candidates:
        if low <= candidate <= high and (not found or candidate >= ratio * found[-1]):
            found.append(candidate)
    return found


def _seconds_per_graph(comparison: Comparison) -> float:
    warm_up = comparison.chosen.warm_up
    return warm_up.seconds / warm_up.graphs


def _short(seconds: float) -> str:
    """A round time in one unit: the second of ``duration`` is 0."""
    return f"{seconds:.0f} s" if seconds < 60 else " ".join(duration(seconds).split()[:2])
