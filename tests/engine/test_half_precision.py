"""Log-probabilities in 16 bits stay close to Hugging Face in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine import reference
from tests.engine.cases import DECODERS, few_graphs, prompts
from tests.engine.jobs import MODES, Job, Pass, run_jobs

TOLERANCE = 2e-2
MIXTURES = ("mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3")
PROMPTS = prompts((33, 257), seed=5)
# The other modes run the same operators; these have dense and latent attention.
IN_ALL_MODES = ("llama", "deepseek_v3")
IN_FLOAT16 = ("qwen2_large_scores", "gpt_oss")
# The same layers, and scores that rounding would spoil.
IN_BFLOAT16 = tuple("qwen2_large_scores" if name == "qwen2" else name for name in DECODERS)

Runs = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def runs(mode: str, tiny: Callable[[str], Path]) -> Runs:
    sampling = {"temperature": 0, "max_tokens": 4, "prompt_logprobs": 0, "logprobs": 0}
    scored = Pass(PROMPTS, sampling | {"ignore_eos": True})
    wanted = [("bfloat16", name) for name in (IN_BFLOAT16 if mode == "eager" else IN_ALL_MODES)]
    if mode == "eager":
        wanted += [("float16", name) for name in IN_FLOAT16]
    jobs = [
        Job(
            f"{dtype} {name}",
            str(tiny(name)),
            [scored],
            {"dtype": dtype, "block_size": 32},
            few_graphs(rows=8),
        )
        for dtype, name in wanted
    ]
    return run_jobs(mode, jobs)


def errors(run: dict[str, Any], path: Path) -> torch.Tensor:
    """How far each position's log-probability, prompt or sampled, is from Hugging Face's."""
    assert "error" not in run, run["error"]
    found = []
    for prompt, answer in zip(PROMPTS, run["passes"][0], strict=True):
        whole = [*prompt, *answer["tokens"]]
        steps = zip(whole[1:], answer["prompt_logprobs"][1:] + answer["logprobs"], strict=True)
        ours = torch.tensor([step[str(token)] for token, step in steps])
        exact = torch.tensor(reference.prompt_logprobs(path, whole, torch.float32))
        found.append((ours - exact).abs())
    return torch.cat(found)


BFLOAT16 = [
    pytest.param(mode, name, id=f"{mode}-{name}")
    for mode in MODES
    for name in (IN_BFLOAT16 if mode == "eager" else IN_ALL_MODES)
]


@pytest.mark.parametrize(("mode", "name"), BFLOAT16, indirect=["mode"], scope="session")
def test_bfloat16(name: str, runs: Runs, tiny: Callable[[str], Path]) -> None:
    """Every position within the tolerance; of a mixture of experts, 99 in a hundred.

    A rounding that sends a token to another expert changes its logits by any amount, in Hugging
    Face's bfloat16 too.
    """
    error = errors(runs[f"bfloat16 {name}"], tiny(name))
    assert error.quantile(0.99 if name in MIXTURES else 1.0).item() <= TOLERANCE


@pytest.mark.parametrize(
    ("mode", "name"),
    [pytest.param("eager", name, id=f"eager-{name}") for name in IN_FLOAT16],
    indirect=["mode"],
    scope="session",
)
def test_float16(name: str, runs: Runs, tiny: Callable[[str], Path]) -> None:
    error = errors(runs[f"float16 {name}"], tiny(name))
    assert error.quantile(0.99 if name in MIXTURES else 1.0).item() <= TOLERANCE
