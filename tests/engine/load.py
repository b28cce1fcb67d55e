"""A mixed load on a live engine: random lengths, arrivals, cancellations, sampling parameters."""

from __future__ import annotations

import random
from typing import Any

from tests.engine.cases import FIRST_TOKEN, LAST_TOKEN


def run_load(
    engine: Any, requests: int, longest: int, seed: int, plain: bool = False
) -> list[dict[str, Any]]:
    """Drive ``engine`` (an `LLM`) step by step; one answer per request.

    A request arrives after a random number of steps; one in ten is cancelled while it runs. Plain
    requests want no more than a temperature, top-k, top-p and a seed.
    """
    draw = random.Random(seed)
    core = engine.llm_engine
    waiting = [f"load-{index}" for index in range(requests)]
    cancel_after: dict[str, int] = {}
    answers: dict[str, dict[str, Any]] = {}
    steps = 0
    while waiting or core.has_unfinished_requests():
        for _ in range(min(len(waiting), draw.choice((0, 0, 1, 1, 2, 5)))):
            name = waiting.pop(0)
            add(core, name, draw, longest, plain)
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


def add(core: Any, name: str, draw: random.Random, longest: int, plain: bool) -> None:
    from vllm import SamplingParams

    length = min(longest, int(draw.lognormvariate(3.5, 1.2)) + 1)
    prompt = [draw.randint(FIRST_TOKEN, LAST_TOKEN) for _ in range(length)]
    sampling = SamplingParams(
        temperature=draw.choice((0.0, 0.7, 1.0)),
        top_p=draw.choice((1.0, 0.9)),
        top_k=draw.choice((0, 20)),
        repetition_penalty=1.0 if plain else draw.choice((1.0, 1.2)),
        logprobs=None if plain else draw.choice((None, None, 3)),
        seed=draw.choice((None, 7)),
        max_tokens=draw.randint(1, 48),
        ignore_eos=True,
    )
    core.add_request(name, {"prompt_token_ids": prompt}, sampling)
