"""Start engines in processes of their own, which a test may kill; see ``start_case.py``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.fork_server import fork_server

ENGINE: dict[str, Any] = {
    "model": str(ROOT / "models" / "demo"),
    "dtype": "float32",
    "max_model_len": 256,
    "max_num_seqs": 4,
    "max_num_batched_tokens": 64,
    "kv_cache_memory_bytes": 64 << 20,
}


@dataclass
class Ended:
    """What a start left behind; ``result`` is empty when it did not get to its end."""

    code: int
    result: dict[str, Any]
    log: str

    def lines(self, *words: str) -> list[str]:
        """Lines of the log with all ``words``."""
        return [line for line in self.log.splitlines() if all(word in line for word in words)]


class Nursery:
    """Starts engines one after the other, each in a process that a test may kill."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def start(self, mode: str, recipes: Path, engine: dict[str, Any], **environment: str) -> int:
        """Begin a start with ``recipes`` as recipe cache; returns the id of its process.

        ``engine`` holds arguments beside ``ENGINE``. :meth:`end` must follow.
        """
        self._count += 1
        own = {
            "PT_HPU_LAZY_MODE": "1" if mode == "graphs" else "0",
            "PT_HPU_RECIPE_CACHE_CONFIG": str(recipes),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "INFO",
            "OMP_NUM_THREADS": "1",
        }
        return fork_server().start(
            "tests.engine.start_case",
            json.dumps(ENGINE | engine),
            str(self._file("json")),
            log=self._file("log"),
            environment=os.environ | own | environment,
        )

    def end(self) -> Ended:
        """Wait for the end of the start."""
        code = fork_server().end(600)
        out = self._file("json")
        result = json.loads(out.read_text()) if out.exists() else {}
        return Ended(code, result, self._file("log").read_text())

    def run(
        self, mode: str, recipes: Path, engine: dict[str, Any] | None = None, **environment: str
    ) -> Ended:
        """A start that is left alone."""
        self.start(mode, recipes, engine or {}, **environment)
        ended = self.end()
        assert ended.code == 0, ended.log[-3000:]
        return ended

    def _file(self, kind: str) -> Path:
        return self._folder / f"{self._count}.{kind}"
