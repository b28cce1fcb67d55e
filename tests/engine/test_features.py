"""What vLLM gives works from day one: sampling, guided decoding, adapters, speculation, pooling."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import regex
import torch

from tests.engine import reference
from tests.engine.cases import few_graphs, prompts
from tests.engine.jobs import Job, Pass, run_jobs

TOKENS = 24
BLOCK_SIZE = 32
PROMPTS = prompts((5, 40, 130), seed=3)
GREEDY = {"temperature": 0, "max_tokens": TOKENS, "ignore_eos": True}
SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 0, "maximum": 999},
        "b": {"enum": ["x", "y"]},
    },
    "required": ["a", "b"],
    "additionalProperties": False,
}
# The texts of SCHEMA, with blanks that have no bound.
SCHEMA_TEXT = r'\s*\{\s*"a"\s*:\s*[0-9]{1,3}\s*,\s*"b"\s*:\s*"[xy]"\s*\}\s*'
GRAMMAR = 'root ::= "yes" | "no"'

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


ADAPTERS = ("llama_lora_head", None, "llama_lora_b")
# Words that come again and again, so that drafts are right now and then.
REPEATED = [(prompts((7,), seed=4)[0] * 9)[:length] for length in (20, 41, 60)]
SCORED = {**GREEDY, "prompt_logprobs": 1, "logprobs": 1}


def guided(**constraint: Any) -> Pass:
    return Pass(
        prompts=PROMPTS,
        sampling={"temperature": 0, "max_tokens": 60, "structured_outputs": constraint},
    )


@pytest.fixture(scope="module")
def merged(
    tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str | None], Path]:
    """The tiny Llama with an adapter merged into its weights, or as it is."""

    @functools.cache
    def made(name: str | None) -> Path:
        if name is None:
            return tiny("llama")
        return reference.with_adapter(tiny("llama"), tiny(name), tmp_path_factory.mktemp(name))

    return made


@pytest.fixture(scope="module")
def feature_runs(
    mode: str, tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    llama = str(tiny("llama"))
    adapters = [name and str(tiny(name)) for name in ADAPTERS]
    live = tmp_path_factory.mktemp("adapter")

    def speculative(**config: Any) -> dict[str, Any]:
        return {"speculative_config": {"num_speculative_tokens": 3, **config}}

    jobs = [
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
            "sampling",
            llama,
            [
                *(sampled(**more) for more in SAMPLING.values()),
                guided(regex="(fox|dog) [0-9]{3}"),
                guided(json=SCHEMA),
                guided(grammar=GRAMMAR),
                guided(choice=["alpha", "beta"]),
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
                Pass(PROMPTS, SCORED, lora=adapters),
                # More likely tokens than graphs score: vLLM's way.
                Pass(PROMPTS, {**SCORED, "prompt_logprobs": 25}, lora=adapters),
                *(
                    Pass(PROMPTS, GREEDY, lora=str(live), more={"replaced_by": str(tiny(name))})
                    for name in ("llama_lora_a", "llama_lora_head")
                ),
                Pass(PROMPTS, GREEDY, lora=str(live)),
            ],
            # Fewer tokens in a step than prompts are scored in at once.
            engine={
                "enable_lora": True,
                "max_loras": 2,
                "max_lora_rank": 8,
                "max_num_batched_tokens": 96,
                "max_logprobs": 25,
            },
        ),
        Job(
            "ngram",
            llama,
            [
                sampled(),
                Pass(REPEATED, GREEDY, lora=adapters),
                Pass(REPEATED, {**GREEDY, "logprobs": 1}, lora=adapters),
            ],
            engine={
                **speculative(method="ngram", prompt_lookup_max=3, prompt_lookup_min=1),
                "enable_lora": True,
                "max_loras": 2,
                "max_lora_rank": 8,
            },
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
    if mode != "graphs":  # the operators of eager mode
        made = str(tiny("ernie4_5"))
        jobs.append(Job("ernie4_5", made, [sampled()], env=few_graphs(rows=8)))
    for job in jobs:
        job.engine["block_size"] = BLOCK_SIZE
        tokens = job.engine.get("max_num_batched_tokens", 256)
        job.env |= few_graphs(rows=8, tokens=tokens)
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
    return dict(zip(SAMPLING, of(feature_runs, "sampling"), strict=False))


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
    regular, schema, grammar, choice = of(feature_runs, "sampling")[len(SAMPLING) :]
    for answer in regular:
        assert re.fullmatch("(fox|dog) [0-9]{3}", answer["text"])
    for answer in schema:
        # The whole of such a text, or how one begins.
        ended = answer["finish_reason"] == "stop"
        assert regex.fullmatch(SCHEMA_TEXT, answer["text"], partial=not ended)
        if ended:
            jsonschema.validate(json.loads(answer["text"]), SCHEMA)
    for answer in grammar:
        assert answer["text"] in ("yes", "no")
    for answer in choice:
        assert answer["text"] in ("alpha", "beta")


def test_lora_equals_merged_weights(
    feature_runs: dict, by_sampling: dict, merged: Callable[[str], Path]
) -> None:
    plain, first, second, again, *_ = (tokens(one) for one in of(feature_runs, "lora"))
    assert plain == again == tokens(by_sampling["greedy"])
    assert first == greedy(merged("llama_lora_a"))
    assert second == greedy(merged("llama_lora_b"))
    assert second not in (plain, first)


def greedy(path: Path, given: list[list[int]] = PROMPTS) -> list[list[int]]:
    return [answer["tokens"] for answer in reference.greedy(path, given, TOKENS)]


@pytest.mark.parametrize("number", [4, 5], ids=["few likely tokens", "many likely tokens"])
def test_each_prompt_is_scored_with_its_own_adapter(
    number: int, feature_runs: dict, merged: Callable[[str | None], Path]
) -> None:
    """Of the three prompts of a step, one has an adapter on the output matrix and one none."""
    answers = of(feature_runs, "lora")[number]
    for name, prompt, answer in zip(ADAPTERS, PROMPTS, answers, strict=True):
        expected = reference.prompt_logprobs(merged(name), prompt, torch.float32)
        steps = zip(prompt[1:], answer["prompt_logprobs"][1:], strict=True)
        assert [step[str(token)] for token, step in steps] == pytest.approx(expected, abs=1e-4)
        assert [answer["tokens"]] == greedy(merged(name), [prompt])


def test_a_replaced_adapter_answers_with_its_new_weights(
    feature_runs: dict, merged: Callable[[str], Path]
) -> None:
    """Its files are replaced where they are; the longest prompt has four blocks in the cache."""
    first, second, kept = of(feature_runs, "lora")[6:]
    assert tokens(first) == greedy(merged("llama_lora_a"))
    assert tokens(second) == tokens(kept) == greedy(merged("llama_lora_head"))
    assert [answer["cached_tokens"] for answer in first + second] == [0] * 6
    assert kept[2]["cached_tokens"] >= 64


def test_every_row_of_drafts_has_its_own_adapter(
    feature_runs: dict, merged: Callable[[str | None], Path]
) -> None:
    for answers in of(feature_runs, "ngram")[1:]:
        for name, prompt, answer in zip(ADAPTERS, REPEATED, answers, strict=True):
            assert [answer["tokens"]] == greedy(merged(name), [prompt]), name


@pytest.mark.parametrize("mode", ["eager", "compile"], indirect=True, scope="session")
def test_a_model_that_changes_its_layers_after_making_them(
    feature_runs: dict, tiny: Callable[[str], Path]
) -> None:
    """Ernie 4.5 is Llama but for its rotary embeddings, which it turns to another style."""
    (answers,) = of(feature_runs, "ernie4_5")
    assert tokens(answers) == greedy(tiny("ernie4_5"))


@pytest.mark.parametrize("method", ["ngram", "draft_model", "eagle", "self_draft"])
def test_speculation_keeps_the_tokens(method: str, feature_runs: dict, by_sampling: dict) -> None:
    assert tokens(of(feature_runs, method)[0]) == tokens(by_sampling["greedy"])
    metrics = feature_runs[method]["metrics"]
    assert metrics["vllm:spec_decode_num_draft_tokens"] > 0
    if method == "self_draft":
        accepted = metrics["vllm:spec_decode_num_accepted_tokens"]
        assert accepted == metrics["vllm:spec_decode_num_draft_tokens"]
