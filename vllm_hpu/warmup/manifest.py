"""What earlier starts learned of each graph, kept in a file beside the bridge's recipe cache.

One file per *fingerprint*: everything that decides what a graph is, from the model's configuration
to the versions of the software. The file lies in the directory of the recipe cache, so that it is
mounted, copied and deleted with it; without a recipe cache it lies in vLLM's cache directory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger("vllm.plugins.vllm_hpu.manifest")

FORMAT = 1
_ABANDONED_SECONDS = 3600.0  # an unfinished file of this age has no writer any more


@dataclass(frozen=True)
class GraphRecord:
    """One graph: seconds it took, bytes of device memory it keeps, whether a cache had it."""

    seconds: float
    bytes: int
    cached: bool

    @classmethod
    def parse(cls, value: Any) -> GraphRecord:
        """Raises ValueError for anything but what :meth:`Manifest.record` writes."""
        if not isinstance(value, dict) or set(value) != {"seconds", "bytes", "cached"}:
            raise ValueError("a graph's record has other fields")
        seconds, size, cached = value["seconds"], value["bytes"], value["cached"]
        if type(seconds) not in (int, float) or type(size) is not int or type(cached) is not bool:
            raise ValueError("a graph's record has values of other types")
        if not (0 <= seconds < float("inf")) or size < 0:
            raise ValueError("a graph's record has a value out of range")
        return cls(float(seconds), size, cached)


def fingerprint(facts: Mapping[str, Any]) -> str:
    """A name for ``facts``, which JSON must be able to express."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Manifest:
    """The records of one fingerprint.

    Attributes:
        graphs: the records by the text of the case.
        path: the file, or None when it cannot be written.
    """

    def __init__(
        self, path: Path | None, name: str, graphs: dict[str, GraphRecord], told: bool = False
    ) -> None:
        """``told``: the user knows already that something is wrong with the file."""
        self.path = path
        self.name = name
        self.graphs = graphs
        self._told = told
        self._swept = False

    @classmethod
    def load(cls, folder: Path, name: str) -> Manifest:
        """The manifest ``name`` in ``folder``; a file that is not one is ignored with one line."""
        path = folder / f"vllm_hpu-{name}.json"
        graphs: dict[str, GraphRecord] = {}
        told = False
        try:
            graphs = _parse(path.read_text(encoding="utf-8"), name)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, RecursionError) as error:
            told = True
            logger.warning("Ignored the warm-up manifest %s: %s.", path, str(error).rstrip("."))
        return cls(path, name, graphs, told)

    def record(self, case: str, record: GraphRecord) -> None:
        """Remember ``record`` and write the file; whoever reads it sees the old or the new one."""
        self.graphs[case] = record
        if self.path is None:
            return
        graphs = {name: asdict(known) for name, known in self.graphs.items()}
        text = json.dumps({"format": FORMAT, "fingerprint": self.name, "graphs": graphs}, indent=1)
        # A name of its own per process: two servers may share the folder.
        unfinished = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
            unfinished.write_text(text, encoding="utf-8")
            os.replace(unfinished, self.path)
        except OSError as error:
            if not self._told:
                logger.warning(
                    "The warm-up manifest cannot be written, so the next start begins anew: %s",
                    error,
                )
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            self.path = None

    def _remove_abandoned(self) -> None:
        """What killed writers left; young ones may belong to another server."""
        if self.path is None or self._swept:
            return
        self._swept = True
        for path in self.path.parent.glob(f"{self.path.name}.*"):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink(missing_ok=True)


def _parse(text: str, name: str) -> dict[str, GraphRecord]:
    """Raises ValueError for a text that is not the manifest ``name``."""
    found = json.loads(text)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError("it has another format")
    if found.get("fingerprint") != name:
        raise ValueError("it belongs to another configuration")
    graphs = found.get("graphs")
    if not isinstance(graphs, dict):
        raise ValueError("it lists no graphs")
    return {case: GraphRecord.parse(value) for case, value in graphs.items()}
