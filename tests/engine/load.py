"""A mixed load on a live engine: random lengths, arrivals, cancellations, sampling parameters."""

from __future__ import annotations

import random
from typing import Any

from tests.engine.cases import FIRST_TOKEN, LAST_TOKEN


def run_load(
    engine: Any,
    requests: int,
    longest: int,
    seed: int,
    wishes: str = "special",
    adapter: str | None = None,
) -> list[dict[str, Any]]:
    """Drive ``engine`` (an `LLM`) step by step; one answer per request.

    A request arrives after a random number of steps; one in ten is cancelled while it runs.

    Args:
        longest: most tokens of a prompt.
        wishes: "plain" requests want no more than a temperature, top-k, top-p and a seed,
            "special" ones anything, "drafted" ones what goes with speculation.
        adapter: folder of a LoRA adapter for every second request.
    """
    draw = random.Random(seed)
    core = engine.llm_engine
    waiting = [f"load-{index}" for index in range(requests)]
    cancel_after: dict[str, int] = {}
    answers: dict[str, dict[str, Any]] = {}
    steps = 0
    while waiting or core.has_unfinished_requests():
        for _ in range(min(len(waiting), draw.choice((0, 0, 1, 1, 2, 12)))):
            name = waiting.pop(0)
            add(core, name, draw, longest, wishes, adapter)
            answers[name] = {"final": 0, "tokens": 0, "cancelled": False}
            if draw.random() < 0.1:
                cancel_after[name] = steps + draw.randint(1, 20)
        for name in [name for name, step in cancel_after.items() if step <= steps]:
            del cancel_after[name]
            if not answers[name]["final"]:
                core.abort_request([name])
                answers[name]["cancelled"] = True
        for output in core.step():
            answer = answers[output.request_id]
            answer["tokens"] = len(output.outputs[0].token_ids)
            answer["final"] += output.finished
        steps += 1
    return list(answers.values())


def add(
    core: Any, name: str, draw: random.Random, longest: int, wishes: str, adapter: str | None
) -> None:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    length = min(longest, int(draw.lognormvariate(3.5, 1.2)) + 1)
    prompt = [draw.randint(FIRST_TOKEN, LAST_TOKEN) for _ in range(length)]
    if draw.random() < 0.3:  # something to propose drafts from
        prompt = (prompt[:15] * 40)[:length]
    asked: dict[str, Any] = {
        "temperature": draw.choice((0.0, 0.7, 1.0)),
        "top_p": draw.choice((1.0, 0.9)),
        "top_k": draw.choice((0, 20)),
        "seed": draw.choice((None, 7)),
        "max_tokens": draw.randint(1, 48),
        "ignore_eos": True,
    }
    if wishes != "plain":
        asked |= special(draw, refused=("min_p", "logit_bias") if wishes == "drafted" else ())
    lora = LoRARequest("adapter", 1, adapter) if adapter and draw.random() < 0.5 else None
    core.add_request(name, {"prompt_token_ids": prompt}, SamplingParams(**asked), lora_request=lora)


def special(draw: random.Random, refused: tuple[str, ...]) -> dict[str, Any]:
    """What a request wants beyond temperature and the like; each seldom, some often."""
    from vllm.sampling_params import StructuredOutputsParams

    options: tuple[tuple[float, dict[str, Any]], ...] = (
        (0.4, {"repetition_penalty": 1.2}),
        (0.1, {"frequency_penalty": 0.3, "presence_penalty": -0.2}),
        (0.3, {"logprobs": draw.randint(0, 5)}),
        (0.1, {"prompt_logprobs": draw.randint(0, 5)}),
        (0.1, {"min_p": 0.05}),
        (0.1, {"logit_bias": {FIRST_TOKEN: 2.0, LAST_TOKEN: -2.0}}),
        (0.1, {"allowed_token_ids": list(range(FIRST_TOKEN, LAST_TOKEN, 2))}),
        (0.1, {"bad_words": ["a", "bc"]}),
        (0.1, {"min_tokens": 1}),
        (0.2, {"structured_outputs": StructuredOutputsParams(regex="[0-9]{4}")}),
    )
    asked: dict[str, Any] = {}
    for chance, fields in options:
        if draw.random() < chance and not set(fields) & set(refused):
            asked |= fields
    if "structured_outputs" in asked:  # which wants other tokens
        asked.pop("allowed_token_ids", None)
    return asked
