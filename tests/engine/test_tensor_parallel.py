"""Two cards give the tokens of one: processes over the real collectives of the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.engine import reference
from tests.engine.cases import prompts
from tests.engine.jobs import Job, Pass, run_jobs

NEW_TOKENS = 24
PROMPTS = prompts((1, 33, 200))
# Mode and model; an engine on two cards is three processes, so only these.
CASES = (
    ("eager", "mixtral"),
    ("compile", "llama"),
    pytest.param("compile", "mixtral", marks=pytest.mark.slow),
    ("graphs", "llama"),
)


@pytest.mark.parametrize(("mode", "name"), CASES)
def test_tokens_on_two_cards(mode: str, name: str, tiny: Callable[[str], Path]) -> None:
    greedy = {"temperature": 0, "max_tokens": NEW_TOKENS, "ignore_eos": True}
    # Small limits: few shapes to compile.
    engine = {
        "tensor_parallel_size": 2,
        "max_model_len": 256,
        "max_num_seqs": 2,
        "max_num_batched_tokens": 32,
    }
    job = Job(name, str(tiny(name)), [Pass(PROMPTS, greedy)], engine=engine)
    run = run_jobs(mode, [job])[name]
    assert "error" not in run, run["error"]
    expected = reference.greedy(tiny(name), PROMPTS, NEW_TOKENS, torch.float32)
    found = [answer["tokens"] for answer in run["passes"][0]]
    assert found == [answer["tokens"] for answer in expected]
    # Counted on both cards.
    assert run["compilations"] == 0
    assert (run["warm_up_compilations"] == 0) == (mode == "eager")
