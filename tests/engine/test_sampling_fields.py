"""Rarer fields of SamplingParams, each against what its definition says of the answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from tests.engine import reference
from tests.engine.cases import few_graphs, prompts
from tests.engine.jobs import Job, Pass, run_jobs

TOKENS = 12
PROMPTS = prompts((5, 40), seed=3)
GREEDY = {"temperature": 0, "max_tokens": TOKENS, "ignore_eos": True}
# Marks that the tiny tokenizer knows as one token each.
START, END = "<tool_call>", "</tool_call>"
FIRST, SECOND = "77", "88"  # by their biases the best and the second best token of every step
BIAS = {FIRST: 100.0, SECOND: 50.0}
SCORED = [[3, 4, -1], [400, 401, 402]]  # -1 pads a row
SCORED_FROM = 2


def sampled(given: list[list[int]] = PROMPTS, **more: Any) -> Pass:
    return Pass(prompts=given, sampling={**GREEDY, **more})


@pytest.fixture(scope="module")
def tokenizer(tiny: Callable[[str], Path]) -> Tokenizer:
    return Tokenizer.from_file(str(tiny("llama") / "tokenizer.json"))


@pytest.fixture(scope="module")
def words(tokenizer: Tokenizer) -> tuple[str, str]:
    """One token as a word, and the same token twice."""
    word = tokenizer.decode([int(FIRST)])
    for text, ids in ((word, [int(FIRST)]), (2 * word, 2 * [int(FIRST)])):
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids
    return word, 2 * word


@pytest.fixture(scope="module")
def answers(
    mode: str, tiny: Callable[[str], Path], tokenizer: Tokenizer, words: tuple[str, str]
) -> dict[str, list[dict[str, Any]]]:
    thinking = [[*prompt, tokenizer.token_to_id(START)] for prompt in PROMPTS]
    repetition = {"max_pattern_size": 2, "min_pattern_size": 1, "min_count": 4}
    passes = {
        "greedy": sampled(),
        "bad word": sampled(bad_words=[words[0]], logit_bias=BIAS),
        "bad pair": sampled(bad_words=[words[1]], logit_bias=BIAS),
        "thinking": sampled(thinking),
        "no thinking": sampled(thinking, thinking_token_budget=0),
        "brief thinking": sampled(thinking, thinking_token_budget=3),
        "not thinking": sampled(thinking_token_budget=3),
        "chosen logprobs": sampled(logprob_token_ids=[20, 30, 40]),
        "flat logprobs": sampled(logprobs=2, flat_logprobs=True),
        "prompt scores": sampled(
            PROMPTS[:1], prompt_logprob_token_ids=SCORED, prompt_logprob_start=SCORED_FROM
        ),
        "repetition": sampled(logit_bias=BIAS, repetition_detection=repetition),
        "stop text": sampled(logit_bias=BIAS, stop=[words[1]], include_stop_str_in_output=True),
        "stop hidden": sampled(logit_bias=BIAS, stop=[words[1]]),
        "no text": sampled(detokenize=False),
        "uncached": sampled(skip_reading_prefix_cache=True),
    }
    job = Job(
        "fields",
        str(tiny("llama")),
        list(passes.values()),
        engine={
            "block_size": 32,
            "reasoning_config": {"reasoning_start_str": START, "reasoning_end_str": END},
        },
        env=few_graphs(rows=8),
    )
    run = run_jobs(mode, [job])["fields"]
    assert "error" not in run, run["error"]
    return dict(zip(passes, run["passes"], strict=True))


def tokens(answers: list[dict[str, Any]]) -> list[list[int]]:
    return [answer["tokens"] for answer in answers]


def test_bad_words(answers: dict[str, list[dict[str, Any]]]) -> None:
    first, second = int(FIRST), int(SECOND)
    assert tokens(answers["bad word"]) == [[second] * TOKENS] * len(PROMPTS)
    # Only its repetition is bad, so the best token comes every other time.
    assert tokens(answers["bad pair"]) == [[first, second] * (TOKENS // 2)] * len(PROMPTS)


def test_thinking_budget(answers: dict[str, list[dict[str, Any]]], tokenizer: Tokenizer) -> None:
    end = tokenizer.token_to_id(END)
    free = tokens(answers["thinking"])
    assert all(end not in row for row in free)
    for row in tokens(answers["no thinking"]):
        assert row[0] == end
    for row, unbounded in zip(tokens(answers["brief thinking"]), free, strict=True):
        assert row[:4] == [*unbounded[:3], end]
    # Who never began to think is not told to end.
    assert tokens(answers["not thinking"]) == tokens(answers["greedy"])


def test_logprobs_of_chosen_tokens(
    answers: dict[str, list[dict[str, Any]]], tiny: Callable[[str], Path]
) -> None:
    model = reference.causal_model(str(tiny("llama")), torch.float32)
    for prompt, answer in zip(PROMPTS, answers["chosen logprobs"], strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + answer["tokens"][:-1]])).logits[0]
        expected = torch.log_softmax(logits[len(prompt) - 1 :], -1)
        for row, token, step in zip(expected, answer["tokens"], answer["logprobs"], strict=True):
            assert set(step) == {"20", "30", "40", str(token)}
            for one, logprob in step.items():
                assert logprob == pytest.approx(row[int(one)].item(), abs=1e-4)


def test_scores_of_prompt_positions(
    answers: dict[str, list[dict[str, Any]]], tiny: Callable[[str], Path]
) -> None:
    model = reference.causal_model(str(tiny("llama")), torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor(PROMPTS[:1])).logits[0]
    expected = torch.log_softmax(logits[SCORED_FROM:-1], -1)
    (answer,) = answers["prompt scores"]
    assert len(answer["prompt_scores"]) == len(SCORED)
    for row, ids, scores in zip(expected, SCORED, answer["prompt_scores"], strict=True):
        for token, score in zip(ids, scores, strict=True):
            if token >= 0:
                assert score == pytest.approx(row[token].item(), abs=1e-4)


def test_flat_logprobs_are_the_same_figures(answers: dict[str, list[dict[str, Any]]]) -> None:
    assert tokens(answers["flat logprobs"]) == tokens(answers["greedy"])
    for answer in answers["flat logprobs"]:
        for token, step in zip(answer["tokens"], answer["logprobs"], strict=True):
            assert step[str(token)] == max(step.values())


def test_ends(answers: dict[str, list[dict[str, Any]]], words: tuple[str, str]) -> None:
    first = int(FIRST)
    for answer in answers["repetition"]:
        assert (answer["tokens"], answer["finish_reason"]) == ([first] * 4, "repetition")
    for name, text in (("stop text", words[1]), ("stop hidden", "")):
        for answer in answers[name]:
            assert (answer["tokens"], answer["text"]) == ([first] * 2, text)
            assert answer["finish_reason"] == "stop"


def test_text_and_cache(answers: dict[str, list[dict[str, Any]]]) -> None:
    assert [answer["text"] for answer in answers["no text"]] == [""] * len(PROMPTS)
    assert [answer["cached_tokens"] for answer in answers["uncached"]] == [0] * len(PROMPTS)
    # The same prompts had their blocks cached by the passes before.
    assert answers["no text"][1]["cached_tokens"] > 0
    assert tokens(answers["uncached"]) == tokens(answers["no text"]) == tokens(answers["greedy"])
