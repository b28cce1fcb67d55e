"""A mixed load on a server: random lengths, arrivals, cancellations, adapters, grammars."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.engine.cases import FIRST_TOKEN, LAST_TOKEN

DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
GRAMMARS: tuple[dict[str, Any], ...] = (
    {"regex": DATE},
    {"choice": ["yes", "no", "perhaps"]},
    {"json": {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}},
    {"grammar": 'root ::= "SELECT " column " FROM t"\ncolumn ::= "a" | "b"'},
)
LETTER = 67  # a token of one letter, in the demo model's tokenizer
MOST_AT_ONCE = 24
REQUEST_SECONDS = 120


@dataclass
class Tally:
    """What became of the requests.

    Attributes:
        outcomes: how many were answered and how many cancelled.
        features: in how many each feature took part.
        errors: what went wrong, one text per request.
        slowest_seconds: the longest time to an answer.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0


def run_load(
    url: str, models: tuple[str, ...], seconds: float, longest: int, seed: int, rate: float
) -> Tally:
    """Send requests for ``seconds``, ``rate`` a second on average, and wait for all answers.

    Args:
        models: names the server knows, of the base model and of its adapters.
        longest: most tokens of a request, prompt and answer together.
    """
    return asyncio.run(_run(url, models, seconds, longest, seed, rate))


async def _run(
    url: str, models: tuple[str, ...], seconds: float, longest: int, seed: int, rate: float
) -> Tally:
    draw, tally = random.Random(seed), Tally()
    gone: list[bool] = []  # a server that has died takes no more requests
    places = asyncio.Semaphore(MOST_AT_ONCE)
    # The server closes a connection after 5 idle seconds, and so does httpx: a request sent in that
    # moment would be lost.
    limits = httpx.Limits(keepalive_expiry=2.0)
    async with httpx.AsyncClient(base_url=url, timeout=REQUEST_SECONDS, limits=limits) as client:

        async def one(asked: dict[str, Any], patience: float | None) -> None:
            try:
                await _ask(client, asked, patience, tally)
            except Exception as error:
                tally.errors.append(f"{error!r} for {asked}")
                gone.append(isinstance(error, httpx.TransportError))
            finally:
                places.release()

        end, tasks = time.monotonic() + seconds, set()
        while time.monotonic() < end and not any(gone):
            # Bursts, and gaps in which the server runs empty.
            for _ in range(draw.choice((1, 1, 1, 2, 6))):
                await places.acquire()
                asked = request(draw, draw.choice(models), longest)
                patience = draw.uniform(0.0, 0.3) if draw.random() < 0.2 else None
                tasks.add(task := asyncio.create_task(one(asked, patience)))
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(draw.expovariate(rate / 2.2))
        await asyncio.gather(*tasks)
    return tally


def request(draw: random.Random, model: str, longest: int) -> dict[str, Any]:
    """The body of a request to /v1/completions; nothing that vLLM refuses with speculation."""
    answer = draw.randint(1, 64)
    length = min(longest - answer, int(draw.lognormvariate(3.5, 1.3)) + 1)
    asked: dict[str, Any] = {
        "model": model,
        "prompt": [draw.randint(FIRST_TOKEN, LAST_TOKEN) for _ in range(length)],
        "max_tokens": answer,
        "temperature": draw.choice((0.0, 0.7, 1.0)),
        "stream": draw.random() < 0.5,
    }
    if draw.random() < 0.3:  # something for the ngram proposer to find
        asked["prompt"] = (asked["prompt"][:20] * 12)[:length]
    # The detokenizer repeats a prompt that ends within a character of several bytes.
    asked["prompt"][-1] = LETTER
    options: tuple[tuple[float, dict[str, Any]], ...] = (
        (0.3, {"top_p": 0.9, "top_k": 20}),
        (0.2, {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.2}),
        (0.2, {"logprobs": draw.randint(0, 5)}),
        (0.1, {"prompt_logprobs": 2, "stream": False}),
        (0.2, {"seed": draw.randint(0, 1000)}),
        (0.2, {"n": draw.randint(2, 3), "temperature": 1.0}),
        (0.1, {"min_tokens": min(answer, 3)}),
        (0.2, {"ignore_eos": True}),
        (0.25, {"structured_outputs": draw.choice(GRAMMARS)}),
    )
    for chance, fields in options:
        if draw.random() < chance:
            asked |= fields
    return asked


async def _ask(
    client: httpx.AsyncClient, asked: dict[str, Any], patience: float | None, tally: Tally
) -> None:
    start = time.monotonic()
    tally.features.update(asked.keys())
    tally.features[f"model {asked['model']}"] += 1
    try:
        async with asyncio.timeout(patience):
            texts = await _answer(client, asked)
    except TimeoutError:
        tally.outcomes["cancelled"] += 1  # the connection is closed, which cancels the request
        return
    tally.slowest_seconds = max(tally.slowest_seconds, time.monotonic() - start)
    tally.outcomes["answered"] += 1
    if len(texts) != asked.get("n", 1) or not all(reason for _, reason in texts.values()):
        tally.errors.append(f"{texts} are not all the answers to {asked}")
    form = asked.get("structured_outputs", {})
    rest = {name: value for name, value in asked.items() if name != "prompt"}
    for text, reason in texts.values():
        if form.get("regex") == DATE and reason == "stop" and not re.fullmatch(DATE, text):
            tally.errors.append(f"{text!r} is no date: {rest}")
        if "choice" in form and reason == "stop" and text not in form["choice"]:
            tally.errors.append(f"{text!r} is none of the choices: {rest}")


async def _answer(client: httpx.AsyncClient, asked: dict[str, Any]) -> dict[int, tuple[str, str]]:
    """Text and reason of its end of every choice, by index."""
    if not asked["stream"]:
        reply = await client.post("/v1/completions", json=asked)
        if reply.status_code != 200:
            raise RuntimeError(reply.text)
        return {
            one["index"]: (one["text"], one["finish_reason"]) for one in reply.json()["choices"]
        }
    texts: dict[int, tuple[str, str]] = {}
    async with client.stream("POST", "/v1/completions", json=asked) as reply:
        if reply.status_code != 200:
            raise RuntimeError((await reply.aread()).decode())
        async for line in reply.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise RuntimeError(line)
            for one in chunk["choices"]:
                text, reason = texts.get(one["index"], ("", ""))
                texts[one["index"]] = (text + one["text"], one["finish_reason"] or reason)
    return texts
