"""What would the work of a block of code cost? FLOPs, bytes, and the time a roofline predicts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from .observation import Launch, Listener, listening
from .operator_cost import Cost
from .roofline import ENGINES, Peaks

__all__ = ["Work", "measure"]


class Work(Listener):
    """What has been launched, all threads and cards together.

    Attributes:
        cost: operations and bytes.
        launches: how many, by kind: "operator", "region", "graph", "lazy", "collective".
        predicted_seconds: sum of the predictions of all launches, as if nothing ran beside another.
        engine_seconds: by engine, what it alone would need.
        copied_bytes: between host and cards; not part of the prediction.
        host_waits: times the host waited for a value or for the device.
        unknown: operators without a cost formula; they are not in the sums.
    """

    def __init__(self, peaks: Peaks) -> None:
        self.peaks = peaks
        self.cost = Cost()
        self.launches: Counter[str] = Counter()
        self.predicted_seconds = 0.0
        self.engine_seconds = dict.fromkeys(ENGINES, 0.0)
        self.copied_bytes = 0
        self.host_waits = 0
        self.unknown: set[str] = set()
        self._lock = threading.Lock()

    def launched(self, launch: Launch) -> None:
        with self._lock:
            self.cost += launch.cost
            self.launches[launch.kind] += 1
            self.predicted_seconds += self.peaks.predicted_seconds(launch.cost)
            for engine, seconds in self.peaks.engine_seconds(launch.cost).items():
                self.engine_seconds[engine] += seconds
            self.unknown |= launch.unknown

    def copied(self, card: int, to_card: bool, size: int, started_ns: int, ended_ns: int) -> None:
        with self._lock:
            self.copied_bytes += size

    def host_waited(self, what: str, at_ns: int) -> None:
        with self._lock:
            self.host_waits += 1


@contextmanager
def measure(peaks: Peaks) -> Iterator[Work]:
    """Count the work of all launches inside; complete when the block has ended."""
    work = Work(peaks)
    with listening(work):
        yield work
