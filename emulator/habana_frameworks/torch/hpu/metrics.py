"""Metrics of the bridge: ``metric_global``, ``metric_localcontext``, ``metrics_dump``.

Each metric is a list of ``(name, value)`` pairs. Names: docs.habana.ai, "Runtime metrics API", and
python_packages/habana_frameworks/torch/hpu/metrics of HabanaAI/gaudi-pytorch-bridge:

* ``graph_compilation``: TotalNumber, TotalTime and AvgTime (microseconds); with
  PT_HPU_METRICS_GC_DETAILS set also recipe, a list of ``(name, duration)``.
* ``cpu_fallback``: TotalNumber, FallbackOps (operator -> how often). An operator without a kernel
  raises on this device, unless PT_HPU_PLACE_ON_CPU names it.
* ``memory_defragmentation``: TotalNumber, TotalSuccessful, AvgTime, MaxTime. The emulated device
  never moves memory.
* ``recipe_cache``: TotalHit, RecipeHit, TotalMiss, RecipeMiss; only with
  PT_HPU_ENABLE_CACHE_METRICS. A miss is a compilation; a hit is the launch of a compiled graph, or
  a graph whose recipe was in memory or on disk.
"""

import collections
import contextlib
import json
import os
from collections.abc import Callable, Iterator

from habana_frameworks.torch._device import counters, recent_compilations
from habana_frameworks.torch._missing import refuse
from habana_frameworks.torch.internal import bridge_config
from habana_frameworks.torch.internal.flags import truthy

__all__ = ["Metric", "MetricNotFound", "metric_global", "metric_localcontext", "metrics_dump"]

_DETAILS_KEPT = 4096


class MetricNotFound(Exception):
    """There is no metric of that name."""


Stats = list[tuple[str, object]]


def _graph_compilation(since) -> Stats:
    total, spent = since.total_compilations, sum(since.compilation_us.values())
    stats: Stats = [
        ("TotalNumber", total),
        ("TotalTime", spent),
        ("AvgTime", spent / total if total else 0),
    ]
    if truthy(os.environ.get("PT_HPU_METRICS_GC_DETAILS", "")):
        stats.append(("recipe", [(c.detail, c.microseconds) for c in _latest(total)]))
    return stats


def _latest(number: int) -> list:
    return recent_compilations(min(number, _DETAILS_KEPT)) if number else []


def _cpu_fallback(since) -> Stats:
    ops = since.host_fallbacks
    return [("TotalNumber", sum(ops.values())), ("FallbackOps", dict(ops))]


def _memory_defragmentation(since) -> Stats:
    return [("TotalNumber", 0), ("TotalSuccessful", 0), ("AvgTime", 0), ("MaxTime", 0)]


def _recipe_cache(since) -> Stats:
    hits = {"graph": since.graph_launches, "region": since.region_launches, **since.recipe_hits}
    misses = collections.Counter(c.detail for c in _latest(since.total_compilations))
    return [
        ("TotalHit", sum(hits.values())),
        ("RecipeHit", {name: count for name, count in hits.items() if count}),
        ("TotalMiss", since.total_compilations),
        ("RecipeMiss", dict(misses)),
    ]


_READERS: dict[str, Callable[..., Stats]] = {
    "graph_compilation": _graph_compilation,
    "cpu_fallback": _cpu_fallback,
    "memory_defragmentation": _memory_defragmentation,
    "recipe_cache": _recipe_cache,
}


def _available(name: str) -> bool:
    if name == "recipe_cache":
        return bool(bridge_config.get_pt_hpu_enable_cache_metrics())
    return name in _READERS


class Metric:
    """One metric, counting from its start or last reset until it is stopped."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._start = counters()
        self._stopped: Stats | None = None

    def name(self) -> str:
        """The metric's name."""
        return self._name

    def stats(self) -> Stats:
        """``(name, value)`` pairs, see the module's documentation."""
        if self._stopped is not None:
            return self._stopped
        return _READERS[self._name](counters() - self._start)

    def reset(self) -> None:
        """Count from now on."""
        self._start = counters()
        self._stopped = None

    def start(self) -> None:
        """Count again after :meth:`stop`, from now on; a running metric keeps counting."""
        if self._stopped is not None:
            self.reset()

    def stop(self) -> None:
        """Keep the present values."""
        self._stopped = self.stats()


_globals: dict[str, Metric] = {name: Metric(name) for name in _READERS}


def metric_global(name: str) -> Metric | None:
    """The metric ``name`` since the import of the bridge; None for an unknown name."""
    return _globals[name] if _available(name) else None


@contextlib.contextmanager
def metric_localcontext(name: str) -> Iterator[Metric]:
    """A metric that counts inside the ``with`` block and keeps its values afterwards.

    Raises:
        MetricNotFound: there is no metric of that name.
    """
    if not _available(name):
        raise MetricNotFound(
            f"Metric with given name ({name}) doesn't exist; there are "
            f"{', '.join(metric for metric in _READERS if _available(metric))}"
            + (
                " (recipe_cache needs PT_HPU_ENABLE_CACHE_METRICS=true)"
                if name == "recipe_cache"
                else ""
            )
        )
    metric = Metric(name)
    try:
        yield metric
    finally:
        metric.stop()


def metrics_dump(file_name: str, format: str = "json") -> None:
    """Write all global metrics to a file, as JSON or as lines of text.

    Args:
        file_name: the file to write; overwritten.
        format: ``json`` or ``text``.
    """
    values = {name: dict(m.stats()) for name, m in _globals.items() if _available(name)}
    if format == "json":
        text = json.dumps(values, indent=2)
    elif format == "text":
        text = "\n".join(
            f"{name}: {key}={value}"
            for name, stats in values.items()
            for key, value in stats.items()
        )
    else:
        raise ValueError(f"metrics_dump: format '{format}' is not one of json, text")
    with open(file_name, "w", encoding="utf-8") as file:
        file.write(text + "\n")


__getattr__ = refuse(__name__)
