"""What the device reports of its own work.

Source: the bridge's ``habana_frameworks.torch.hpu.metrics`` (``metric_global``; Intel Gaudi
documentation, "Runtime metrics API").
"""

from typing import Any


def compilations() -> int:
    """Recipes compiled by this process so far, in all modes."""
    return int(_compilation()["TotalNumber"])


def compilation_seconds() -> float:
    """Seconds these compilations took together; the bridge counts microseconds."""
    return float(_compilation()["TotalTime"]) / 1e6


def host_fallbacks() -> int | None:
    """Operators that ran on the host instead; None where the bridge does not count them."""
    stats = _stats("cpu_fallback")
    return None if stats is None else int(stats["TotalNumber"])


def _compilation() -> dict[str, Any]:
    stats = _stats("graph_compilation")
    if stats is None:
        raise RuntimeError("the bridge has no metric graph_compilation: compilations are unknown")
    return stats


def _stats(name: str) -> dict[str, Any] | None:
    from habana_frameworks.torch.hpu.metrics import metric_global

    metric = metric_global(name)
    return None if metric is None else dict(metric.stats())
