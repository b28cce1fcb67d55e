"""What the device reports of its own work.

Source: the bridge's ``habana_frameworks.torch.hpu.metrics`` (``metric_global``).
"""

from typing import Any


def compilations() -> int:
    """Recipes compiled by this process so far, in all modes."""
    from habana_frameworks.torch.hpu.metrics import metric_global

    metric = metric_global("graph_compilation")
    if metric is None:
        raise RuntimeError("the bridge has no metric graph_compilation: compilations are unknown")
    stats: dict[str, Any] = dict(metric.stats())
    return int(stats["TotalNumber"])
