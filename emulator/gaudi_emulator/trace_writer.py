"""A run as a trace for Perfetto or chrome://tracing: what the host did, and what a card is
predicted to take for it.

The format is Chrome's "Trace Event Format", JSON array form, whose closing bracket may be missing,
so that the trace of a killed process can be read. Times of the host are measured on this machine;
those of a card are predictions on a clock of their own, which starts at zero and runs only while
the card works. The two say nothing about each other.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import observation
from .counters import counters
from .observation import Launch, Listener
from .roofline import Peaks

__all__ = ["Trace", "start_process_trace", "write_trace"]

HOST_COPIES, HOST_COMPILATIONS = 1, 2
CARD_WORK, CARD_COPIES, CARD_NETWORK = 1, 2, 3
_FLUSH_EVENTS = 256
_CARD_PROCESSES = 10_000_000  # above every process id of Linux


class Trace(Listener):
    """Writes one file, event by event."""

    def __init__(self, path: Path, device_name: str, peaks: Peaks) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.peaks = peaks
        self._lock = threading.Lock()
        self._file = path.open("w", encoding="utf-8")
        self._file.write("[\n")
        self._started_ns = time.monotonic_ns()
        self._counted_from = counters()
        self._written = 0
        self._clock_us: defaultdict[int, float] = defaultdict(float)
        self._host = os.getpid()
        self._named: set[tuple[int, int]] = set()
        about = {"device": device_name, "launch_us": peaks.launch_seconds * 1e6, "version": 1}
        with self._lock:
            self._write({"ph": "M", "name": "gaudi_emulator", "pid": self._host, "args": about})
            self._name_process(self._host, f"host process {self._host} (measured here)")
            self._name_thread(self._host, HOST_COPIES, "copies")
            self._name_thread(self._host, HOST_COMPILATIONS, "compilations")

    def launched(self, launch: Launch) -> None:
        bound = self.peaks.bound(launch.cost)
        predicted = self.peaks.predicted_seconds(launch.cost) * 1e6
        args: dict[str, Any] = {"kind": launch.kind, "operators": launch.operators}
        args |= {name: value for name, value in asdict(launch.cost).items() if value}
        args["bound"] = bound
        if launch.unknown:
            args["without_formula"] = sorted(launch.unknown)
        with self._lock:
            self._name_thread(self._host, launch.thread, f"thread {launch.thread}")
            self._span("launch", launch.name, launch.thread, launch.started_ns, launch.ended_ns)
            track = CARD_NETWORK if launch.kind == "collective" else CARD_WORK
            self._predict("predicted", launch.name, launch.card, track, predicted, args)

    def copied(self, card: int, to_card: bool, size: int, started_ns: int, ended_ns: int) -> None:
        name = "host to card" if to_card else "card to host"
        args = {"bytes": size, "card": card}
        predicted = size / self.peaks.host_bytes_per_s * 1e6
        with self._lock:
            self._span("copy", name, HOST_COPIES, started_ns, ended_ns, args)
            self._predict("predicted copy", name, card, CARD_COPIES, predicted, {"bytes": size})

    def host_waited(self, what: str, at_ns: int) -> None:
        thread = threading.get_native_id()
        event = {"ph": "i", "s": "t", "cat": "host_sync", "name": f"host waits: {what}"}
        with self._lock:
            self._name_thread(self._host, thread, f"thread {thread}")
            self._write(event | {"pid": self._host, "tid": thread, "ts": self._us(at_ns)})

    def compiled(self, kind: str, detail: str, microseconds: int, ended_ns: int) -> None:
        started_ns = max(ended_ns - microseconds * 1000, self._started_ns)
        args = {"kind": kind, "us": microseconds}
        with self._lock:
            self._span("compilation", detail, HOST_COMPILATIONS, started_ns, ended_ns, args)

    def close(self) -> None:
        """End the file with what the device has counted meanwhile."""
        with self._lock:
            if self._file.closed:
                return
            counted = asdict(counters() - self._counted_from)
            event = {"ph": "M", "name": "counters", "pid": self._host, "args": counted}
            self._file.write(json.dumps(event) + "\n]\n")
            self._file.close()

    def _us(self, at_ns: int) -> float:
        return (at_ns - self._started_ns) / 1000

    def _span(
        self, category: str, name: str, tid: int, start: int, end: int, args: Any = None
    ) -> None:
        times = {"ts": self._us(start), "dur": (end - start) / 1000}
        event = {"ph": "X", "cat": category, "name": name, "pid": self._host, "tid": tid}
        self._write(event | times | ({"args": args} if args else {}))

    def _predict(
        self, category: str, name: str, card: int, track: int, us: float, args: dict
    ) -> None:
        pid = _CARD_PROCESSES * (card + 1) + self._host
        if (pid, 0) not in self._named:
            self._named.add((pid, 0))
            self._name_process(
                pid, f"hpu:{card} of process {self._host} (PREDICTED, {self.peaks.name})"
            )
            for tid, title in ((1, "work"), (2, "copies"), (3, "collectives")):
                self._name_thread(pid, tid, title)
        event = {"ph": "X", "cat": category, "name": name, "pid": pid, "tid": track}
        self._write(event | {"ts": self._clock_us[card], "dur": us, "args": args})
        self._clock_us[card] += us

    def _name_process(self, pid: int, title: str) -> None:
        self._write({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": title}})

    def _name_thread(self, pid: int, tid: int, title: str) -> None:
        if (pid, tid) not in self._named:
            self._named.add((pid, tid))
            event = {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid}
            self._write(event | {"args": {"name": title}})

    def _write(self, event: dict) -> None:
        if self._file.closed:
            return
        self._file.write(json.dumps(event) + ",\n")
        self._written += 1
        if self._written % _FLUSH_EVENTS == 0:
            self._file.flush()


@contextmanager
def write_trace(path: Path, device_name: str, peaks: Peaks) -> Iterator[Trace]:
    """Trace what happens inside, in this process."""
    trace = Trace(path, device_name, peaks)
    try:
        with observation.listening(trace):
            yield trace
    finally:
        trace.close()


def start_process_trace(folder: Path, device_name: str, peaks: Peaks) -> None:
    """Trace this process from now to its end, in a file of its own."""
    trace = Trace(folder / f"trace-{os.getpid()}.json", device_name, peaks)
    observation.start(trace)

    def end() -> None:
        observation.stop(trace)
        trace.close()

    atexit.register(end)
