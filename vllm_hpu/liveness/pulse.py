"""Signs of life of a process, in a file that another process reads without asking.

A process that is stopped cannot answer, and one that waits for its card does not. So nobody is
asked: the engine core and every worker count what they do in memory that they share through a
file, beside their metrics. Nothing there is a time; the reader has the only clock, and one that was
itself stopped for a while does not take that for the silence of others.
"""

from __future__ import annotations

import atexit
import functools
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

BEAT_SECONDS = 0.5
"""How often a living process counts, whatever it does."""

_PREFIX, _SUFFIX = "pulse_", ".bin"
_FIELD = struct.Struct("=q")


class Signs(NamedTuple):
    """What a process has counted.

    pid         of the process
    beats       of its clock
    steps       that it has begun and ended
    compiled    recipes that its device has compiled
    in_step     how many steps it is in: 1 or 0
    away        how many things it does that may take any time, e.g. compile a graph
    longest_ms  the longest step so far in which nothing was compiled, in milliseconds
    """

    pid: int
    beats: int = 0
    steps: int = 0
    compiled: int = 0
    in_step: int = 0
    away: int = 0
    longest_ms: int = 0


_PLACES = {field: index * _FIELD.size for index, field in enumerate(Signs._fields)}


class Pulse:
    """The signs of one role of this process, "engine core" or "rank 0"."""

    def __init__(self, folder: str, role: str) -> None:
        """Without a ``folder``, or where there is none of that name, nothing is written."""
        self.role = role
        self.times_away = 0
        self._signs = dict(Signs(os.getpid())._asdict())
        self._memory: mmap.mmap | None = None
        self._path: Path | None = None
        if folder and os.path.isdir(folder):
            name = f"{_PREFIX}{os.getpid()}_{role.replace(' ', '-')}{_SUFFIX}"
            self._path = Path(folder, name)
            self._memory = _map(self._path, len(self._signs) * _FIELD.size)
            atexit.register(self.close)
        for name in self._signs:
            self.set(name, self._signs[name])

    def set(self, field: str, value: int) -> None:
        """Show ``value`` for ``field`` of :class:`Signs`."""
        self._signs[field] = value
        if self._memory is not None:
            _FIELD.pack_into(self._memory, _PLACES[field], value)

    def add(self, field: str, amount: int) -> None:
        """Only one thread may count a field."""
        self.set(field, self._signs[field] + amount)

    def close(self) -> None:
        """Write no more, and leave no file."""
        self._memory = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            atexit.unregister(self.close)

    @contextmanager
    def step(self) -> Iterator[None]:
        """What happens within is a step."""
        start, compiled, away = time.monotonic(), self._signs["compiled"], self.times_away
        self.set("in_step", 1)
        try:
            yield
        finally:
            self.set("in_step", 0)
            self.add("steps", 1)
            milliseconds = int(1e3 * (time.monotonic() - start))
            plain = away == self.times_away and compiled == self._signs["compiled"]
            if plain and milliseconds > self._signs["longest_ms"]:
                self.set("longest_ms", milliseconds)


_pulses: list[Pulse] = []
_lock = threading.Lock()


def start(folder: str, role: str) -> Pulse:
    """Show signs of life of this process from here on."""
    pulse = Pulse(folder, role)
    with _lock:
        _pulses.append(pulse)
    _start_beating()
    return pulse


def stop(pulse: Pulse) -> None:
    """Show none any more."""
    with _lock:
        if pulse in _pulses:
            _pulses.remove(pulse)
    pulse.close()


@contextmanager
def away() -> Iterator[None]:
    """What happens within may take any time: nobody takes it for a step that hangs."""
    _count_away(1)
    try:
        yield
    finally:
        _count_away(-1)


def compiled(recipes: int) -> None:
    """The device of this process has compiled so many more."""
    with _lock:
        for pulse in _pulses:
            pulse.add("compiled", recipes)


def read(folder: str) -> dict[str, Signs]:
    """The signs of the processes that write to ``folder``, by file."""
    found = {}
    for path in Path(folder).glob(f"{_PREFIX}*{_SUFFIX}"):
        try:
            content = path.read_bytes()
        except OSError:
            continue  # its process has just ended
        if len(content) == len(Signs._fields) * _FIELD.size:
            found[path.name] = Signs(*(value for (value,) in _FIELD.iter_unpack(content)))
    return found


def role_of(file: str) -> str:
    """The role in the name of a file of ``read``."""
    return file.removesuffix(_SUFFIX).split("_", 2)[2].replace("-", " ")


def _count_away(amount: int) -> None:
    with _lock:
        for pulse in _pulses:
            pulse.add("away", amount)
            pulse.times_away += 1


@functools.cache  # once per process
def _start_beating() -> None:
    threading.Thread(target=_beat, name="hpu-pulse", daemon=True).start()


def _beat() -> None:
    while True:
        time.sleep(BEAT_SECONDS)
        for pulse in tuple(_pulses):
            pulse.add("beats", 1)


def _map(path: Path, size: int) -> mmap.mmap:
    path.write_bytes(bytes(size))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), size)
