"""Greedy decoding equals Hugging Face, token for token, in every execution mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.cases import DECODERS, NEVER_PREEMPTED, TIGHT_BLOCKS

Runs = dict[str, dict[str, Any]]
Reference = Callable[[str], list[dict[str, list[Any]]]]


def same_tokens(answers: list[dict[str, Any]], expected: list[dict[str, list[Any]]]) -> None:
    for index, (answer, reference) in enumerate(zip(answers, expected, strict=True)):
        assert answer["tokens"] == reference["tokens"], f"prompt {index}"


def passes(runs: Runs, name: str) -> list[list[dict[str, Any]]]:
    run = runs[name]
    assert "error" not in run, run["error"]
    found: list[list[dict[str, Any]]] = run["passes"]
    return found


@pytest.mark.parametrize("name", DECODERS)
def test_tokens(name: str, greedy_runs: Runs, greedy_reference: Reference) -> None:
    same_tokens(passes(greedy_runs, name)[0], greedy_reference(name))


@pytest.mark.parametrize("name", DECODERS)
def test_logprobs(name: str, greedy_runs: Runs, greedy_reference: Reference) -> None:
    for answer, expected in zip(passes(greedy_runs, name)[0], greedy_reference(name), strict=True):
        for token, step, logprob in zip(
            expected["tokens"], answer["logprobs"], expected["logprobs"], strict=True
        ):
            assert step[str(token)] == pytest.approx(logprob, abs=1e-4)


@pytest.mark.parametrize("name", DECODERS)
def test_prefix_cache(name: str, greedy_runs: Runs, greedy_reference: Reference) -> None:
    second = passes(greedy_runs, name)[1]
    assert sum(answer["cached_tokens"] for answer in second) > 500
    same_tokens(second, greedy_reference(name))


@pytest.mark.parametrize("name", TIGHT_BLOCKS)
def test_preemption(name: str, greedy_runs: Runs, greedy_reference: Reference) -> None:
    same_tokens(passes(greedy_runs, f"{name}/tight")[0], greedy_reference(name) * 2)
    preemptions = greedy_runs[f"{name}/tight"]["metrics"]["vllm:num_preemptions"]
    assert (preemptions > 0) == (name not in NEVER_PREEMPTED)


@pytest.mark.parametrize("name", DECODERS)
def test_no_compilation_after_warm_up(name: str, mode: str, greedy_runs: Runs) -> None:
    assert greedy_runs[name]["compilations"] == 0
    if name in TIGHT_BLOCKS:
        assert greedy_runs[f"{name}/tight"]["compilations"] == 0
    assert (greedy_runs[name]["warm_up_compilations"] == 0) == (mode == "eager")


def test_starts_look_at_imports_once(greedy_runs: Runs) -> None:
    # vLLM collects garbage nine times while it loads; a full collection of what importing it made
    # takes half a second. Beside ours, the collector may run by itself before a worker is there.
    assert max(run["heap_collections"] for run in greedy_runs.values()) <= 3
