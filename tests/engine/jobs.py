"""Engine runs as data: what to start, what to ask, what came back.

A *job* is one engine with a list of *passes* over it. Jobs of one execution mode run in one process
(`run_jobs`), since importing vLLM costs more than a tiny engine; the mode is a process-wide choice
of the bridge.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.fork_server import fork_server

MODES = ("eager", "compile", "graphs")


@dataclass
class Pass:
    """One `LLM` call: method ``generate``, ``embed``, ``score`` or ``sleep``, arguments as JSON.

    ``lora``: folder of an adapter, for all prompts or for each its own; ``more`` of one for all:
    ``replaced_by``, a folder whose files take the place of its own before the call.
    """

    prompts: list[Any]
    sampling: dict[str, Any] = field(default_factory=dict)
    method: str = "generate"
    lora: str | list[str | None] | None = None
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class Job:
    name: str
    model: str
    passes: list[Pass]
    engine: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


def mode_environment(mode: str) -> dict[str, str]:
    """The variables that select an execution mode."""
    return {"PT_HPU_LAZY_MODE": "1" if mode == "graphs" else "0"}


def run_jobs(mode: str, jobs: list[Job], timeout_s: float = 1800) -> dict[str, dict[str, Any]]:
    """Run the jobs in a process of their own; results by job name.

    A job that failed has its traceback under ``error``; it does not stop the others.
    """
    with tempfile.TemporaryDirectory() as folder:
        request, answer = Path(folder) / "jobs.json", Path(folder) / "results.json"
        request.write_text(json.dumps([asdict(job) for job in jobs]))
        log = Path(folder) / "log"
        environment = os.environ | mode_environment(mode) | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        code = fork_server().run(
            "tests.engine.run_jobs",
            mode,
            str(request),
            str(answer),
            log=log,
            environment=environment,
            timeout_s=timeout_s,
        )
        if not answer.exists():
            raise RuntimeError(f"The engine process ended with {code}:\n{log.read_text()[-9000:]}")
        results: dict[str, dict[str, Any]] = json.loads(answer.read_text())
        return results
