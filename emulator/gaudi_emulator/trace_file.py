"""What does a trace say? Reads the files that :mod:`.trace_writer` writes, whole or cut short."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .operator_cost import Cost

__all__ = ["Group", "Summary", "read"]

_COST_FIELDS = [f.name for f in fields(Cost)]


@dataclass
class Group:
    """Launches of the same work.

    Attributes:
        kind: "operator", "region", "graph" or "collective".
        name: the operator, graph, region or collective.
        launches: how often.
        operators: operators inside, of all launches.
        cost: work of all launches.
        costs: work of a single launch, and how often that was launched.
    """

    kind: str
    name: str
    launches: int = 0
    operators: int = 0
    cost: Cost = field(default_factory=Cost)
    costs: Counter[Cost] = field(default_factory=Counter)


@dataclass
class Summary:
    """What all files together say.

    Attributes:
        devices: kinds of the cards, such as "GAUDI3".
        launch_us: what was assumed for a launch.
        groups: launches by (kind, name).
        copies: by direction, "host to card" or "card to host": how many, and bytes.
        host_waits: by what the host waited for.
        compilations: by kind: how many, and microseconds of this host.
        compiled: what was compiled, and its microseconds.
        counters: what the device counted, of the files that are complete.
        without_formula: operators whose work is not in the sums.
        complete: whether every file has its end.
    """

    devices: set[str] = field(default_factory=set)
    launch_us: float | None = None
    groups: dict[tuple[str, str], Group] = field(default_factory=dict)
    copies: dict[str, list[int]] = field(default_factory=dict)
    host_waits: Counter[str] = field(default_factory=Counter)
    compilations: dict[str, list[int]] = field(default_factory=dict)
    compiled: list[tuple[str, int]] = field(default_factory=list)
    counters: list[dict[str, Any]] = field(default_factory=list)
    without_formula: set[str] = field(default_factory=set)
    processes: int = 0

    @property
    def complete(self) -> bool:
        """Whether every process has ended its file."""
        return len(self.counters) == self.processes

    def add(self, event: dict[str, Any]) -> None:
        """Take one event of a trace."""
        name, args = str(event.get("name")), event.get("args", {})
        category = event.get("cat")
        if category == "predicted":
            self._launch(name, args)
        elif category == "copy":
            _count(self.copies, name, int(args["bytes"]))
        elif category == "host_sync":
            self.host_waits[name.removeprefix("host waits: ")] += 1
        elif category == "compilation":
            _count(self.compilations, str(args["kind"]), int(args["us"]))
            self.compiled.append((name, int(args["us"])))
        elif event.get("ph") == "M" and name == "counters":
            self.counters.append(args)
        elif event.get("ph") == "M" and name == "gaudi_emulator":
            self.processes += 1
            self.devices.add(str(args["device"]))
            self.launch_us = float(args["launch_us"])

    def _launch(self, name: str, args: dict[str, Any]) -> None:
        cost = Cost(*(int(args.get(part, 0)) for part in _COST_FIELDS))
        key = (str(args["kind"]), name)
        group = self.groups.setdefault(key, Group(*key))
        group.launches += 1
        group.operators += int(args["operators"])
        group.cost += cost
        group.costs[cost] += 1
        self.without_formula.update(args.get("without_formula", ()))


def _count(totals: dict[str, list[int]], kind: str, amount: int) -> None:
    total = totals.setdefault(kind, [0, 0])
    total[0] += 1
    total[1] += amount


def _events(path: Path) -> Iterable[dict[str, Any]]:
    """One event a line; the last line of a killed process may be cut."""
    with path.open(encoding="utf-8") as file:
        if file.readline().strip() != "[":
            raise ValueError(f"{path} is not a trace of gaudi-emulator: it does not begin with '['")
        for number, line in enumerate(file, 2):
            text = line.strip().rstrip(",")
            if not text or text == "]":
                continue
            try:
                event = json.loads(text)
            except json.JSONDecodeError as error:
                if line.endswith("\n"):
                    raise ValueError(f"{path}, line {number}: not an event ({error})") from None
                return
            if not isinstance(event, dict):
                raise ValueError(f"{path}, line {number}: not an event")
            yield event


def read(paths: Iterable[Path]) -> Summary:
    """Summarise trace files, and the files ``trace-*.json`` of folders.

    Raises:
        FileNotFoundError: no such file, or a folder without traces.
        ValueError: a file is no trace of this software.
    """
    summary = Summary()
    for path in paths:
        files = sorted(path.glob("trace-*.json")) if path.is_dir() else [path]
        if not files:
            raise FileNotFoundError(
                f"{path} holds no trace-*.json: run the program with GAUDI_EMULATOR_TRACE={path}"
            )
        for file in files:
            try:
                for event in _events(file):
                    summary.add(event)
            except (KeyError, TypeError) as error:
                raise ValueError(f"{file} is not a trace of gaudi-emulator: {error}") from None
    if not summary.processes:
        raise ValueError("the files hold no event of gaudi-emulator")
    return summary
