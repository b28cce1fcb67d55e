"""`vllm-hpu plan`, which imports neither torch nor vLLM, shows what a server would plan."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.engine.cases import DECODERS
from tests.fork_server import fork_server, last_object

DEMO = ROOT / "models" / "demo"
# The least memory of a card that gets the limits of a large one.
CARDS = {"gaudi2": "96GiB", "gaudi3": "128GiB"}


def output(*arguments: str | Path, **environment: str) -> Any:
    """What ``vllm-hpu`` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "vllm_hpu.cli", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def planned(flags: dict[str, Any], *models: Path, log: Path, **environment: str) -> Any:
    """What servers with these engine arguments plan, by model."""
    arguments = (json.dumps(flags), *map(str, models))
    variables = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    code = fork_server().run("tests.engine.plan_case", *arguments, log=log, environment=variables)
    assert code == 0, log.read_text()[-3000:]
    return json.loads(last_object(log))


def shown(found: Any) -> Any:
    """Limits and graphs as both sides tell them."""
    graphs = [
        {name: value for name, value in graph.items() if name != "covering"}
        for graph in found["graphs"]
    ]
    return {"limits": found["limits"], "graphs": graphs}


@pytest.mark.parametrize(("card", "memory"), CARDS.items())
def test_a_server_without_limits(card: str, memory: str, tmp_path: Path) -> None:
    """The defaults are vLLM's on a card of that size."""
    environment = {"GAUDI_EMULATOR_MEMORY": memory, "GAUDI_EMULATOR_DEVICE": card.upper()}
    server = planned({}, DEMO, log=tmp_path / "log", **environment)
    plan = output("plan", DEMO, "--card", card, "--json")
    assert shown(plan) == server[str(DEMO)]


def test_several_cards(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """Costs are those of a rank's share, which changes what is cheapest."""
    model = tiny("qwen3_moe")
    limits = {"max_num_seqs": 8, "max_num_batched_tokens": 256, "tensor_parallel_size": 2}
    environment = {"VLLM_BUCKETING_STRATEGY": "opt"}
    server = planned(limits, model, log=tmp_path / "log", **environment)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in limits.items()]
    plan = output("plan", model, *flags, "--json", **environment)
    assert plan["tensor_parallel_size"] == 2
    assert shown(plan) == server[str(model)]


@pytest.mark.parametrize("strategy", ["exp", "opt"])
def test_models_and_strategies(strategy: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """Sizes, longest request and type are read from config.json as vLLM reads them."""
    models = [tiny(name) for name in DECODERS]
    limits = {"max_num_seqs": 8, "max_num_batched_tokens": 256, "block_size": 32}
    environment = {"VLLM_BUCKETING_STRATEGY": strategy}
    server = planned(limits, *models, log=tmp_path / "log", **environment)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in limits.items()]
    for model in models:
        plan = output("plan", model, *flags, "--json", **environment)
        assert shown(plan) == server[str(model)], model.name
