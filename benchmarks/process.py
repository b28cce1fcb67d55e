"""A contender's process: started, stopped while others are measured, spoken to in JSON lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

# A model hub and usage reports have no place in a measurement.
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


class ContenderProcess:
    """Runs ``command`` in a process group of its own, which is stopped between its turns."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], logs: Path):
        self.name = name
        self.log = logs / f"{name.replace(' ', '-')}.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **OFFLINE, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.description: dict[str, str] = self._answer()
        self._signal(signal.SIGSTOP)

    def generate(self, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
        """Let it run one job; returns ``seconds`` and the generated ``tokens``."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None  # opened above
        self._process.stdin.write(json.dumps({"prompts": prompts, "new_tokens": new_tokens}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        if any(len(row) != new_tokens for row in answer["tokens"]):
            raise RuntimeError(f"{self.name} generated other than {new_tokens} tokens per prompt")
        return answer

    def close(self) -> None:
        """Let it end by itself (its input ends); after half a minute, kill its process group."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None  # opened above
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # opened above
        line = self._process.stdout.readline()
        if not line:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise RuntimeError(f"{self.name} ended early; the end of {self.log}:\n{tail}")
        return json.loads(line)
