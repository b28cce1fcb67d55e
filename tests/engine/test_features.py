"""What vLLM gives works from day one: sampling, guided decoding, adapters, speculation, pooling."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.cases import prompts
from tests.engine.jobs import Job, Pass, run_jobs

TOKENS = 24
PROMPTS = prompts((5, 40, 130), seed=3)
GREEDY = {"temperature": 0, "max_tokens": TOKENS, "ignore_eos": True}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
GRAMMAR = 'root ::= "yes" | "no"'

# What the library of the other grammars leaves out in silence.
MULTIPLES = {"type": "integer", "minimum": 100, "maximum": 999, "multipleOf": 7}

# What the worker's types and tables cannot hold: raises at once, and when it is sent to the device.
UNFIT: list[dict[str, Any]] = [
    {"seed": 2**63},
    {"min_tokens": 1, "_all_stop_token_ids": list(range(129))},
    {"allowed_token_ids": [2**40]},
]

# Every field of SamplingParams that changes tokens, alone; {} is the greedy baseline.
SAMPLING: dict[str, dict[str, Any]] = {
    "greedy": {},
    "seeded": {"temperature": 0.9, "seed": 11},
    "top_k": {"temperature": 1.0, "top_k": 1},
    "top_p": {"temperature": 1.0, "top_p": 1e-6},
    "min_p": {"temperature": 1.0, "min_p": 1.0},
    "repetition_penalty": {"repetition_penalty": 1.8},
    "frequency_penalty": {"frequency_penalty": 2.0},
    "presence_penalty": {"presence_penalty": 2.0},
    "logit_bias": {"logit_bias": {"77": 100.0}},
    "allowed_token_ids": {"allowed_token_ids": [20, 21, 22]},
    "stop_token_ids": {"ignore_eos": False, "stop_token_ids": list(range(10, 512))},
    # Wants to stop at once, by a biased token, and may not before its sixth.
    "min_tokens": {
        "ignore_eos": False,
        "min_tokens": 5,
        "allowed_token_ids": [20, 21, 22],
        "stop_token_ids": [20],
        "logit_bias": {"20": 50.0},
    },
    "n": {"temperature": 1.0, "seed": 3, "n": 3},
    "logprobs": {"logprobs": 5},
    "prompt_logprobs": {"prompt_logprobs": 3},
}


def sampled(**more: Any) -> Pass:
    return Pass(prompts=PROMPTS, sampling={**GREEDY, **more})


def guided(**constraint: Any) -> Pass:
    return Pass(
        prompts=PROMPTS,
        sampling={"temperature": 0, "max_tokens": 60, "structured_outputs": constraint},
    )


@pytest.fixture(scope="module")
def feature_runs(mode: str, tiny: Callable[[str], Path]) -> dict[str, dict[str, Any]]:
    llama = str(tiny("llama"))

    def speculative(**config: Any) -> dict[str, Any]:
        return {"speculative_config": {"num_speculative_tokens": 3, **config}}

    jobs = [
        Job("sampling", llama, [sampled(**more) for more in SAMPLING.values()]),
        Job(
            "seeded again",
            llama,
            [
                sampled(**SAMPLING["seeded"]),
                Pass(PROMPTS, GREEDY, method="unfit", more={"requests": UNFIT}),
                sampled(**SAMPLING["seeded"]),
            ],
        ),
        Job(
            "guided",
            llama,
            [
                guided(regex="(fox|dog) [0-9]{3}"),
                guided(json=SCHEMA),
                guided(grammar=GRAMMAR),
                guided(choice=["alpha", "beta"]),
                guided(json=MULTIPLES),
                guided(regex="(fox|dog) [0-9]{3}"),
            ],
        ),
        Job(
            "lora",
            llama,
            [
                sampled(),
                Pass(prompts=PROMPTS, sampling=GREEDY, lora=str(tiny("llama_lora_a"))),
                Pass(prompts=PROMPTS, sampling=GREEDY, lora=str(tiny("llama_lora_b"))),
                sampled(),
            ],
            engine={"enable_lora": True, "max_loras": 2, "max_lora_rank": 8},
        ),
        Job(
            "ngram",
            llama,
            [sampled()],
            engine=speculative(method="ngram", prompt_lookup_max=3, prompt_lookup_min=1),
        ),
        Job(
            "draft_model",
            llama,
            [sampled()],
            engine=speculative(method="draft_model", model=str(tiny("llama_draft"))),
        ),
        Job(
            "eagle",
            llama,
            [sampled()],
            engine=speculative(method="eagle", model=str(tiny("llama_eagle"))),
        ),
        Job(
            "self_draft",
            llama,
            [sampled()],
            engine=speculative(method="draft_model", model=llama),
        ),
    ]
    return run_jobs(mode, jobs)


def of(runs: dict[str, dict[str, Any]], name: str) -> list[list[dict[str, Any]]]:
    run = runs[name]
    assert "error" not in run, run["error"]
    found: list[list[dict[str, Any]]] = run["passes"]
    return found


def tokens(answers: list[dict[str, Any]]) -> list[list[int]]:
    return [answer["tokens"] for answer in answers]


@pytest.fixture
def by_sampling(feature_runs: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return dict(zip(SAMPLING, of(feature_runs, "sampling"), strict=True))


def test_seed_is_reproducible(by_sampling: dict, feature_runs: dict) -> None:
    assert tokens(by_sampling["seeded"]) == tokens(of(feature_runs, "seeded again")[0])
    assert tokens(by_sampling["seeded"]) != tokens(by_sampling["greedy"])


@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p", "logprobs", "prompt_logprobs"])
def test_equals_greedy(name: str, by_sampling: dict) -> None:
    assert tokens(by_sampling[name]) == tokens(by_sampling["greedy"])


@pytest.mark.parametrize("name", ["repetition_penalty", "frequency_penalty", "presence_penalty"])
def test_penalties_avoid_repeats(name: str, by_sampling: dict) -> None:
    for penalised, plain in zip(
        tokens(by_sampling[name]), tokens(by_sampling["greedy"]), strict=True
    ):
        assert len(set(penalised)) >= len(set(plain))
    assert tokens(by_sampling[name]) != tokens(by_sampling["greedy"])


def test_bias_and_allowed(by_sampling: dict) -> None:
    assert tokens(by_sampling["logit_bias"]) == [[77] * TOKENS] * len(PROMPTS)
    for row in tokens(by_sampling["allowed_token_ids"]):
        assert set(row) <= {20, 21, 22}


def test_stop_and_min_tokens(by_sampling: dict) -> None:
    for answer in by_sampling["stop_token_ids"]:
        assert len(answer["tokens"]) == 1
        assert answer["finish_reason"] == "stop"
    for answer in by_sampling["min_tokens"]:
        assert len(answer["tokens"]) == 6


def test_n_samples(by_sampling: dict) -> None:
    for answer in by_sampling["n"]:
        assert len(answer["samples"]) == 3
        assert len({tuple(one) for one in answer["samples"]}) > 1


def test_logprobs_are_sorted_and_complete(by_sampling: dict) -> None:
    for answer in by_sampling["logprobs"]:
        for token, step in zip(answer["tokens"], answer["logprobs"], strict=True):
            assert len(step) == 5
            assert step[str(token)] == max(step.values())


def test_a_request_that_cannot_be_added_ends_alone(by_sampling: dict, feature_runs: dict) -> None:
    before, mixed, after = of(feature_runs, "seeded again")
    good, bad = mixed[: len(PROMPTS)], mixed[len(PROMPTS) :]
    assert tokens(good) == tokens(by_sampling["greedy"])
    assert len(bad) == len(PROMPTS) * len(UNFIT)
    assert {answer["finish_reason"] for answer in bad} == {"error"}
    assert tokens(bad) == [[]] * len(bad)
    assert tokens(after) == tokens(before)


def test_prompt_logprobs_cover_the_prompt(by_sampling: dict) -> None:
    for answer, prompt in zip(by_sampling["prompt_logprobs"], PROMPTS, strict=True):
        steps = answer["prompt_logprobs"]
        assert len(steps) == len(prompt)
        assert steps[0] is None
        assert all(str(token) in step for token, step in zip(prompt[1:], steps[1:], strict=True))


def test_guided_decoding(feature_runs: dict) -> None:
    regex, schema, grammar, choice, multiples, again = of(feature_runs, "guided")
    for answer in (*regex, *again):
        assert re.fullmatch("(fox|dog) [0-9]{3}", answer["text"])
    for answer in schema:
        if answer["finish_reason"] == "stop":
            found = json.loads(answer["text"])
            assert isinstance(found["a"], int)
            assert found["b"] in ("x", "y")
        else:
            assert answer["text"].lstrip().startswith("{")
    for answer in grammar:
        assert answer["text"] in ("yes", "no")
    for answer in choice:
        assert answer["text"] in ("alpha", "beta")
    for answer in multiples:
        assert int(answer["text"]) % 7 == 0


def test_lora_equals_merged_weights(feature_runs: dict, by_sampling: dict) -> None:
    plain, first, second, again = (tokens(one) for one in of(feature_runs, "lora"))
    assert plain == again == tokens(by_sampling["greedy"])
    assert first != plain
    assert second not in (plain, first)


@pytest.mark.parametrize("method", ["ngram", "draft_model", "eagle", "self_draft"])
def test_speculation_keeps_the_tokens(method: str, feature_runs: dict, by_sampling: dict) -> None:
    assert tokens(of(feature_runs, method)[0]) == tokens(by_sampling["greedy"])
    metrics = feature_runs[method]["metrics"]
    assert metrics["vllm:spec_decode_num_draft_tokens"] > 0
    if method == "self_draft":
        accepted = metrics["vllm:spec_decode_num_accepted_tokens"]
        assert accepted == metrics["vllm:spec_decode_num_draft_tokens"]
