"""Engine runs and references, each made once per session and mode."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest

from models.tiny import build
from tests.engine import cases, reference
from tests.engine.jobs import MODES, Job, Pass, run_jobs


@pytest.fixture(scope="session", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """The execution mode; session-scoped so that tests are sorted by engine."""
    return str(request.param)


@pytest.fixture(scope="session")
def tiny(model_directory: Path) -> Callable[[str], Path]:
    """Path of a tiny model, built on first use."""

    @functools.cache
    def built(name: str) -> Path:
        with filelock.FileLock(model_directory / f"{name}.lock"):
            return build(name, model_directory)

    return built


@pytest.fixture(scope="session")
def greedy_reference(
    tiny: Callable[[str], Path], model_directory: Path
) -> Callable[[str], list[dict[str, list[Any]]]]:
    """Greedy answers of Hugging Face for the common prompts, by model name.

    Kept in a file beside the models, since several test processes ask for the same answers.
    """

    @functools.cache
    def answers(name: str) -> list[dict[str, list[Any]]]:
        weights = (tiny(name) / "model.safetensors").read_bytes()
        asked = json.dumps([cases.prompts(), cases.NEW_TOKENS]).encode()
        key = hashlib.sha256(weights + asked).hexdigest()[:16]
        kept = model_directory / f"greedy-{name}-{key}.json"
        with filelock.FileLock(f"{kept}.lock"):
            if not kept.exists():
                found = reference.greedy(tiny(name), cases.prompts(), cases.NEW_TOKENS)
                kept.write_text(json.dumps(found))
        loaded: list[dict[str, list[Any]]] = json.loads(kept.read_text())
        return loaded

    return answers


@pytest.fixture(scope="session")
def greedy_runs(mode: str, tiny: Callable[[str], Path]) -> dict[str, dict[str, Any]]:
    """Every decoder model in this mode.

    ``NAME``: prefix caching on, the prompts asked twice. ``NAME/tight``, for a model of each kind
    of cache: prefix caching off and so few blocks that requests are preempted. Both with few
    graphs, by the linear strategy, but for one model: its first engine has the default plan.
    """
    sampling = {
        "temperature": 0,
        "max_tokens": cases.NEW_TOKENS,
        "ignore_eos": True,
        "logprobs": 2,
    }
    once = cases.prompts()
    jobs = []
    for name in cases.DECODERS:
        path = str(tiny(name))
        asked_twice = [Pass(prompts=once, sampling=sampling)] * 2
        plan = {} if name == cases.DEFAULT_PLAN else cases.few_graphs(rows=8)
        plain = {"block_size": 32, "max_num_seqs": 8}
        jobs.append(Job(name, path, asked_twice, engine=plain, env=plan))
        if name not in cases.TIGHT_BLOCKS:
            continue
        tight = {
            "block_size": 32,
            "max_num_seqs": 16,
            "enable_prefix_caching": False,
            "num_gpu_blocks_override": cases.TIGHT_BLOCKS[name],
        }
        together = [Pass(prompts=once * 2, sampling=sampling)]
        jobs.append(
            Job(f"{name}/tight", path, together, engine=tight, env=cases.few_graphs(rows=16))
        )
    return run_jobs(mode, jobs)
