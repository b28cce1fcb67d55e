"""The memory of every process of a server over time, and how fast it grows."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import psutil

MB = 1e6


class Sample(NamedTuple):
    """One look at one process: seconds since the start of the run, and bytes.

    rss  resident: all pages of the process in memory
    uss  of these, the pages that no other process has
    pss  the same, and its share of those that others have too
    """

    seconds: float
    rss: int
    uss: int
    pss: int


@dataclass(frozen=True)
class Slope:
    """Of a straight line through samples, in MB (10^6 bytes) per hour.

    per_hour     the slope by least squares
    uncertainty  two standard errors, widened for what neighbouring samples have in common
    """

    per_hour: float
    uncertainty: float


def slope(seconds: Sequence[float], values: Sequence[float]) -> Slope:
    """Fit a line to ``values`` (bytes) over ``seconds``.

    Deviations from the line are not independent: memory is taken and given back in steps that last
    over many samples. The standard error is widened by sqrt((1 + r) / (1 - r)) for a correlation r
    between neighbours (the effective sample size of a first-order autoregressive process).
    """
    count = len(values)
    if count < 3:
        return Slope(math.nan, math.nan)
    x = np.asarray(seconds) / 3600
    y = np.asarray(values, dtype=float) / MB
    x = x - x.mean()
    spread = float((x**2).sum())
    found = float((x * (y - y.mean())).sum()) / spread
    rest = y - y.mean() - found * x
    squares = float((rest**2).sum())
    if squares < 1e-12:
        return Slope(found, 0.0)
    error = math.sqrt(squares / (count - 2) / spread)
    r = min(max(float((rest[1:] * rest[:-1]).sum()) / squares, 0.0), 0.99)
    return Slope(found, 2 * error * math.sqrt((1 + r) / (1 - r)))


class ProcessTree:
    """Samples the processes below one; each is known by its name and number of its kind."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._names: dict[int, str] = {}
        self.samples: dict[str, list[Sample]] = {}

    def look(self, seconds: float) -> None:
        """Add a sample of every process; those that have ended keep what they have."""
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                memory = process.memory_full_info()
                name = self._name(process)
            except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
                continue
            self.samples.setdefault(name, []).append(
                Sample(seconds, memory.rss, memory.uss, memory.pss)
            )

    def _name(self, process: psutil.Process) -> str:
        if process.pid not in self._names:
            base = "API server" if process == self._root else _role(process.cmdline())
            same = sum(name.partition(" #")[0] == base for name in self._names.values())
            self._names[process.pid] = f"{base} #{same + 1}" if same else base
        return self._names[process.pid]


def _role(command: list[str]) -> str:
    """What vLLM calls a process ("VLLM::EngineCore"), or else the module that it runs."""
    text = " ".join(command)
    if found := re.search(r"VLLM::(\w+)", text):
        return found.group(1)
    if found := re.search(r"from multiprocessing\.(\w+)", text):
        return found.group(1).replace("_", " ")
    return text[:40] or "unnamed"
