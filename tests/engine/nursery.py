"""Start engines in processes of their own, which a test may kill; see ``tests.engine.starts``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.conftest import ROOT

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
    """A process that has imported what engines need; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.starts"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def start(self, mode: str, recipes: Path, engine: dict[str, Any], **environment: str) -> int:
        """Begin a start with ``recipes`` as recipe cache; returns the id of its process.

        ``engine`` holds arguments beside ``ENGINE``. :meth:`end` must follow.
        """
        self._count += 1
        request = {
            "environment": {
                "PT_HPU_LAZY_MODE": "1" if mode == "graphs" else "0",
                "PT_HPU_RECIPE_CACHE_CONFIG": str(recipes),
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                "VLLM_LOGGING_LEVEL": "INFO",
                **environment,
            },
            "engine": ENGINE | engine,
            "log": str(self._folder / f"{self._count}.log"),
            "out": str(self._folder / f"{self._count}.json"),
        }
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return int(self._answer())

    def end(self) -> Ended:
        """Wait for the end of the start."""
        code = int(self._answer())
        out = self._folder / f"{self._count}.json"
        result = json.loads(out.read_text()) if out.exists() else {}
        return Ended(code, result, (self._folder / f"{self._count}.log").read_text())

    def run(
        self, mode: str, recipes: Path, engine: dict[str, Any] | None = None, **environment: str
    ) -> Ended:
        """A start that is left alone."""
        self.start(mode, recipes, engine or {}, **environment)
        ended = self.end()
        assert ended.code == 0, ended.log[-3000:]
        return ended

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()
