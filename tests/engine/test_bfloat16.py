"""Log-probabilities in bfloat16 stay close to Hugging Face in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine import reference
from tests.engine.cases import DECODERS, prompts
from tests.engine.jobs import Job, Pass, run_jobs

TOLERANCE = 2e-2
MIXTURES = ("mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3")
PROMPTS = prompts((33, 257), seed=5)


@pytest.fixture(scope="module")
def runs(tiny: Callable[[str], Path]) -> dict[str, dict[str, Any]]:
    scored = Pass(PROMPTS, {"temperature": 0, "max_tokens": 1, "prompt_logprobs": 0})
    engine = {"dtype": "bfloat16", "block_size": 32}
    return run_jobs(
        "eager", [Job(name, str(tiny(name)), [scored], engine=engine) for name in DECODERS]
    )


@pytest.mark.parametrize("name", DECODERS)
def test_prompt_logprobs(
    name: str, runs: dict[str, dict[str, Any]], tiny: Callable[[str], Path]
) -> None:
    """All but one position in a hundred within the tolerance, and none beyond twice that.

    A rounding that sends a token to another expert changes its logits by any amount, in Hugging
    Face's bfloat16 too, so for mixtures of experts five positions in a hundred may stray.
    """
    assert "error" not in runs[name], runs[name]["error"]
    errors = []
    for prompt, answer in zip(PROMPTS, runs[name]["passes"][0], strict=True):
        steps = zip(prompt[1:], answer["prompt_logprobs"][1:], strict=True)
        ours = torch.tensor([step[str(token)] for token, step in steps])
        exact = torch.tensor(reference.prompt_logprobs(tiny(name), prompt, torch.float32))
        errors.append((ours - exact).abs())
    error = torch.cat(errors)
    mixture = name in MIXTURES
    assert error.quantile(0.95 if mixture else 0.99).item() <= TOLERANCE
    assert mixture or error.max().item() <= 2 * TOLERANCE
