"""How much warm-up may spend, and whether a graph still fits."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True)
class Budget:
    """Limits of all graphs together; None does not limit.

    seconds  time to compile them (--hpu-warmup-seconds)
    bytes    device memory they may keep (--hpu-warmup-bytes)
    """

    seconds: int | None
    bytes: int | None

    def refusal(
        self, spent_seconds: float, kept_bytes: int, seconds: float, size: int, room_bytes: int
    ) -> str:
        """Why a graph does not fit that takes ``seconds`` and ``size`` bytes; "" if it does.

        Args:
            spent_seconds, kept_bytes: what the graphs before it took.
            room_bytes: free memory that the largest step does not need.
        """
        if self.seconds is not None and spent_seconds + seconds > self.seconds:
            return f"--hpu-warmup-seconds {self.seconds} is used up"
        if self.bytes is not None and kept_bytes + size > self.bytes:
            return f"--hpu-warmup-bytes {self.bytes} is used up"
        if size > room_bytes:
            return (
                "the device memory that is left is what the largest step needs; lower "
                "--gpu-memory-utilization or --kv-cache-memory-bytes to make room for graphs"
            )
        return ""
