"""How long would a card need at best? A prediction from published peaks, never a measurement."""

from __future__ import annotations

from dataclasses import dataclass

from .operator_cost import Cost


@dataclass(frozen=True)
class Peaks:
    """Published peak rates of one card.

    Attributes:
        bf16_flops_per_s, fp8_flops_per_s: of the matrix engines.
        vector_flops_per_s: of the vector engines, bfloat16.
        bytes_per_s: of the card's memory.
        source: where the figures come from.
    """

    name: str
    bf16_flops_per_s: float
    fp8_flops_per_s: float
    vector_flops_per_s: float
    bytes_per_s: float
    source: str

    def predicted_seconds(self, cost: Cost, fp8: bool = False) -> float:
        """The roofline bound of one operator: its engines and its memory work at the same time.

        Launch overhead and interconnect are not in it.
        Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
        """
        matrix = self.fp8_flops_per_s if fp8 else self.bf16_flops_per_s
        return max(
            cost.matrix_flops / matrix,
            cost.vector_flops / self.vector_flops_per_s,
            cost.bytes / self.bytes_per_s,
        )


PEAKS = {
    "GAUDI2": Peaks(
        "Gaudi 2",
        432e12,
        865e12,
        11e12,
        2.46e12,
        "Intel, Hot Chips 2024; FP8: arXiv 2503.09975; the vector peak is unverified",
    ),
    "GAUDI3": Peaks("Gaudi 3", 1835e12, 1835e12, 28.7e12, 3.67e12, "Intel, Hot Chips 2024"),
}
