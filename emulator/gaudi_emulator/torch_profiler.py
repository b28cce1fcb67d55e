"""PyTorch's profiler with ``ProfilerActivity.HPU``: its trace has what the card did, too.

The real bridge adds the card's events through Kineto, by means of a library of the driver's. Here
they are added to the file that the profiler writes (Chrome's "Trace Event Format", JSON object
form). When an event begins is measured on this machine; how long it takes is the prediction for
the emulated card, which does one thing of a kind after another.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler.profiler import _KinetoProfile

from . import observation
from .observation import Launch, Listener
from .roofline import Peaks

__all__ = ["install"]

_WORK, _COPIES = 1, 2
_CARD_PROCESSES = 10_000_000  # above every process id of Linux


class CardEvents(Listener):
    """Gathers the events of the cards while a profiler runs."""

    def __init__(self, peaks: Peaks) -> None:
        self.peaks = peaks
        # The host's events carry the time of day.
        self._day_ns = time.time_ns() - time.monotonic_ns()
        self._free_ns: defaultdict[tuple[int, int], float] = defaultdict(float)
        self._events: list[tuple[int, int, str, str, float, float, dict[str, Any]]] = []

    def launched(self, launch: Launch) -> None:
        seconds = self.peaks.predicted_seconds(launch.cost)
        args = {"kind": launch.kind, "operators": launch.operators}
        self._add(launch.card, _WORK, "kernel", launch.name, launch.started_ns, seconds, args)

    def copied(self, card: int, to_card: bool, size: int, started_ns: int, ended_ns: int) -> None:
        name = "host to card" if to_card else "card to host"
        seconds = size / self.peaks.host_bytes_per_s
        self._add(card, _COPIES, "gpu_memcpy", name, started_ns, seconds, {"bytes": size})

    def _add(
        self, card: int, track: int, category: str, name: str, at: int, seconds: float, args: Any
    ) -> None:
        begins = max(self._day_ns + at, self._free_ns[card, track])
        self._free_ns[card, track] = begins + seconds * 1e9
        self._events.append((card, track, category, name, begins, seconds * 1e6, args))

    def of_trace(self, base_ns: int) -> list[dict[str, Any]]:
        """The events with microseconds since ``base_ns``, after the names of their tracks."""
        host = os.getpid()
        found: list[dict[str, Any]] = []
        for card in sorted({card for card, *_ in self._events}):
            pid = _CARD_PROCESSES * (card + 1) + host
            title = f"hpu:{card} (durations PREDICTED, {self.peaks.name})"
            named = {"ph": "M", "pid": pid, "ts": 0}
            found.append(named | {"name": "process_name", "tid": 0, "args": {"name": title}})
            for tid, track in ((_WORK, "work"), (_COPIES, "copies")):
                found.append(named | {"name": "thread_name", "tid": tid, "args": {"name": track}})
        for card, tid, category, name, at_ns, us, args in self._events:
            event = {"ph": "X", "cat": category, "name": name, "tid": tid, "args": args}
            pid = _CARD_PROCESSES * (card + 1) + host
            found.append(event | {"pid": pid, "ts": (at_ns - base_ns) / 1000, "dur": us})
        return found


def install(peaks: Peaks) -> None:
    """Let every profiler that records HPU gather the cards' events."""
    start, stop = _KinetoProfile.start_trace, _KinetoProfile.stop_trace
    export = _KinetoProfile.export_chrome_trace
    profiler: Any = _KinetoProfile

    @functools.wraps(start)
    def start_trace(self: Any) -> None:
        start(self)
        if ProfilerActivity.HPU in self.activities:
            self._gaudi_emulator_events = CardEvents(peaks)
            observation.start(self._gaudi_emulator_events)

    @functools.wraps(stop)
    def stop_trace(self: Any) -> None:
        events = getattr(self, "_gaudi_emulator_events", None)
        if events is not None:
            torch.hpu.synchronize()
            observation.stop(events)
        stop(self)

    @functools.wraps(export)
    def export_chrome_trace(self: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        result = export(self, path, *args, **kwargs)
        events = getattr(self, "_gaudi_emulator_events", None)
        if events is not None:
            _add_to(Path(path), events)
        return result

    profiler.start_trace, profiler.stop_trace = start_trace, stop_trace
    profiler.export_chrome_trace = export_chrome_trace


def _add_to(path: Path, events: CardEvents) -> None:
    """Add the cards' events to a trace that the profiler has written."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        trace = json.load(file)
    trace["traceEvents"] += events.of_trace(int(trace.get("baseTimeNanoseconds", 0)))
    with opened(path, "wt", encoding="utf-8") as file:
        json.dump(trace, file)
