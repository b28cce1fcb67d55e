"""How long would a card need at best? A prediction from published peaks, never a measurement.

The assumptions are on the page docs/cost.md of this distribution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .config import DEFAULT_LAUNCH_US
from .operator_cost import Cost

__all__ = ["ENGINES", "PEAKS", "Peaks", "peaks_of"]

ENGINES = ("matrix", "vector", "memory", "network", "launch")
"""What can bound a launch, as `Peaks.engine_seconds` names it."""


@dataclass(frozen=True)
class Peaks:
    """Published peak rates of one card.

    Attributes:
        bf16_flops_per_s, fp8_flops_per_s: of the matrix engines.
        vector_flops_per_s: of the vector engines, bfloat16.
        bytes_per_s: of the card's memory.
        link_bytes_per_s: from one card to one other of the box, in one direction.
        host_bytes_per_s: between host and card, in one direction.
        launch_seconds: what every launch costs beside its work; an assumption, no published figure.
        sources: where each figure comes from.
    """

    name: str
    bf16_flops_per_s: float
    fp8_flops_per_s: float
    vector_flops_per_s: float
    bytes_per_s: float
    link_bytes_per_s: float
    host_bytes_per_s: float
    launch_seconds: float
    sources: dict[str, str]

    def engine_seconds(self, cost: Cost) -> dict[str, float]:
        """Seconds that each engine would need for ``cost`` alone, one launch included."""
        return {
            "matrix": cost.matrix_flops / self.bf16_flops_per_s
            + cost.fp8_flops / self.fp8_flops_per_s,
            "vector": cost.vector_flops / self.vector_flops_per_s,
            "memory": cost.bytes / self.bytes_per_s,
            "network": cost.link_bytes / self.link_bytes_per_s,
            "launch": self.launch_seconds,
        }

    def predicted_seconds(self, cost: Cost, overlap: bool = True) -> float:
        """The roofline bound of one launch and its overhead.

        Engines and memory work at the same time, the network after them. Williams, Waterman and
        Patterson, "Roofline", CACM 52(4), 2009.

        Args:
            cost: all the work of the launch.
            overlap: False lets the engines work one after the other.
        """
        seconds = self.engine_seconds(cost)
        at_once = [seconds[engine] for engine in ("matrix", "vector", "memory")]
        busy = max(at_once) if overlap else sum(at_once)
        return busy + seconds["network"] + seconds["launch"]

    def bound(self, cost: Cost) -> str:
        """The engine that needs longest: one of `ENGINES`."""
        seconds = self.engine_seconds(cost)
        return max(ENGINES, key=lambda engine: seconds[engine])


_HOT_CHIPS = "Intel, Hot Chips 2024"
_ASSUMED_LAUNCH = "assumed: no figure is published (GAUDI_EMULATOR_LAUNCH_US sets it)"

PEAKS = {
    "GAUDI2": Peaks(
        "Gaudi 2",
        bf16_flops_per_s=432e12,
        fp8_flops_per_s=865e12,
        vector_flops_per_s=11e12,
        bytes_per_s=2.46e12,
        link_bytes_per_s=37.5e9,
        host_bytes_per_s=32e9,
        launch_seconds=DEFAULT_LAUNCH_US * 1e-6,
        sources={
            "bf16_flops_per_s": _HOT_CHIPS,
            "fp8_flops_per_s": "arXiv 2503.09975",
            "vector_flops_per_s": "unverified",
            "bytes_per_s": _HOT_CHIPS,
            "link_bytes_per_s": "docs.habana.ai, Network Configuration: 3 ports of 100 GbE a pair",
            "host_bytes_per_s": _HOT_CHIPS + ": PCIe 4 x16, 64 GB/s in both directions together",
            "launch_seconds": _ASSUMED_LAUNCH,
        },
    ),
    "GAUDI3": Peaks(
        "Gaudi 3",
        bf16_flops_per_s=1835e12,
        fp8_flops_per_s=1835e12,
        vector_flops_per_s=28.7e12,
        bytes_per_s=3.67e12,
        link_bytes_per_s=75e9,
        host_bytes_per_s=64e9,
        launch_seconds=DEFAULT_LAUNCH_US * 1e-6,
        sources={
            "bf16_flops_per_s": _HOT_CHIPS,
            "fp8_flops_per_s": _HOT_CHIPS,
            "vector_flops_per_s": _HOT_CHIPS,
            "bytes_per_s": _HOT_CHIPS,
            "link_bytes_per_s": "docs.habana.ai, Network Configuration: 3 ports of 200 GbE a pair",
            "host_bytes_per_s": _HOT_CHIPS + ": PCIe 5 x16, 128 GB/s in both directions together",
            "launch_seconds": _ASSUMED_LAUNCH,
        },
    ),
}


def peaks_of(device_name: str, launch_us: float | None = None) -> Peaks:
    """The peaks of a card, with another launch overhead if given (microseconds)."""
    peaks = PEAKS[device_name]
    return peaks if launch_us is None else replace(peaks, launch_seconds=launch_us * 1e-6)
