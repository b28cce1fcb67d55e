"""How many graphs a plan may have."""

import re
from dataclasses import dataclass
from typing import Self

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.shapes.cost import PREDICTED_GRAPH, GraphPrice

_UNITS = {
    "graphs": ("graphs", 1.0),
    "s": ("seconds", 1.0),
    "min": ("seconds", 60.0),
    "h": ("seconds", 3600.0),
    "mib": ("bytes", 2.0**20),
    "gib": ("bytes", 2.0**30),
}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")


@dataclass(frozen=True)
class PlanBudget:
    """Most graphs of a plan, and most seconds and bytes that compiling and keeping them may take.

    None sets no limit.
    """

    graphs: float | None = 100
    seconds: float | None = None
    bytes: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From limits like "100 graphs", "20 min, 8 GiB".

        Raises:
            ConfigurationError: another text.
        """
        found: dict[str, float | None] = dict.fromkeys(("graphs", "seconds", "bytes"))
        for part in text.lower().split(","):
            match = _PART.fullmatch(part.strip())
            if match is None or match[2] not in _UNITS:
                raise ConfigurationError(
                    f"A plan's budget of {text!r} is not understood",
                    "It is a list of numbers with one of the units graphs, s, min, h, MiB, GiB",
                    'Write for example VLLM_HPU_PLAN_BUDGET="100 graphs, 20 min"',
                )
            name, factor = _UNITS[match[2]]
            found[name] = float(match[1]) * factor
        return cls(**found)

    def most(self, price: GraphPrice = PREDICTED_GRAPH) -> int | None:
        """Graphs it pays for when each takes ``price``; None without a limit."""
        bounds = [
            limit / each
            for limit, each in (
                (self.graphs, 1),
                (self.seconds, price.seconds),
                (self.bytes, price.bytes),
            )
            if limit is not None
        ]
        return int(min(bounds)) if bounds else None
