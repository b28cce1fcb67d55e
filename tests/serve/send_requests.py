"""Send generated requests to a server and say what must not be among the answers."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

from tests.serve.generated_requests import Generator, Request

AT_ONCE = 8
BATCH = 50
SECONDS = 90  # for one answer; whatever takes longer hangs


class Known(NamedTuple):
    """An answer of 5xx to a request that is at fault, which no hook of a platform sees.

    Attributes:
        path: pattern of the endpoint.
        message: pattern of the answer.
        reason: whose fault it is.
    """

    path: str
    message: str
    reason: str


KNOWN = (
    Known(
        "/invocations",
        "object has no attribute",
        "vLLM's /invocations validates the body itself, where no exception is taken for a bad body",
    ),
    Known(
        "/v1/(chat/)?completions",
        "float division by zero",
        "vLLM's beam search divides by the length to the power of length_penalty",
    ),
    Known(
        "/v1/messages",
        "validation errors for ChatCompletionStreamResponse",
        "vLLM's /v1/messages takes the chunk with the refusal for a chunk of the answer",
    ),
    Known(
        "/v1/systemone",
        "does not support the structured decision API",
        "not at fault: 501 says that this model has no such endpoint",
    ),
)


@dataclass
class Tally:
    """What became of the requests.

    Attributes:
        answers: how many of each status, by endpoint.
        known: how many were excused by each entry of ``KNOWN``.
        wrong: what must not be, one text per request.
        slowest_seconds: the longest time to an answer.
    """

    answers: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0


def send_all(url: str, model: str, count: int, seed: int, good: dict[str, Any]) -> Tally:
    """Send ``count`` generated requests and, between batches, a good one with a known answer."""
    schema = httpx.get(f"{url}/openapi.json", timeout=SECONDS).json()
    generator = Generator(schema, model, seed)
    assert not generator.unknown, f"say how to ask {generator.unknown}"
    return asyncio.run(_send_all(url, generator, count, good))


async def _send_all(url: str, generator: Generator, count: int, good: dict[str, Any]) -> Tally:
    tally = Tally()
    limits = httpx.Limits(keepalive_expiry=2.0)
    async with httpx.AsyncClient(base_url=url, timeout=SECONDS, limits=limits) as client:
        expected = await _good(client, good)
        for start in range(0, count, BATCH):
            numbers = iter(range(start, min(start + BATCH, count)))
            senders = (_send_some(client, generator, numbers, tally) for _ in range(AT_ONCE))
            await asyncio.gather(*senders)
            answer = await _good(client, good)
            assert answer == expected, f"after {start + BATCH} requests: {answer}, {tally.wrong}"
    return tally


async def _good(client: httpx.AsyncClient, good: dict[str, Any]) -> Any:
    reply = await client.post(good["path"], json=good["body"])
    assert reply.status_code == 200, reply.text
    return [reply.json().get(part) for part in ("choices", "data")]


async def _send_some(
    client: httpx.AsyncClient, generator: Generator, numbers: Iterator[int], tally: Tally
) -> None:
    for number in numbers:
        request = generator.request(number)
        start = time.monotonic()
        try:
            async with asyncio.timeout(request.patience):
                try:
                    status, text = await _send(client, request)
                except httpx.ReadError:
                    # The server has closed an idle connection at that moment. A request that is
                    # at fault fails again.
                    status, text = await _send(client, request)
        except TimeoutError:
            tally.answers[f"{request.path} cancelled"] += 1
            continue
        except httpx.HTTPError as error:
            status, text = 599, repr(error)
        tally.slowest_seconds = max(tally.slowest_seconds, time.monotonic() - start)
        tally.answers[f"{request.path} {status}"] += 1
        _judge(number, request, status, text, tally)


async def _send(client: httpx.AsyncClient, request: Request) -> tuple[int, str]:
    """Status and text of the answer; an error within a stream has its own status."""
    # NaN and half surrogates are not JSON, but clients send them.
    body = json.dumps(request.body)
    headers = {"content-type": "application/json"}
    reply = await client.post(request.path, content=body, headers=headers)
    if "event-stream" not in reply.headers.get("content-type", ""):
        return reply.status_code, reply.text
    for line in reply.text.splitlines():
        if line.startswith("data: {") and '"error"' in line:
            error = json.loads(line[6:]).get("error")
            if error:
                return int(error.get("code") or 500), line
    return reply.status_code, ""


def _judge(number: int, request: Request, status: int, text: str, tally: Tally) -> None:
    if status < 500:
        return
    for known in KNOWN:
        if re.search(known.path, request.path) and re.search(known.message, text):
            tally.known[known.reason] += 1
            return
    fields = request.body if isinstance(request.body, dict) else {"body": request.body}
    shown = {name: ascii(fields.get(name))[:200] for name in (*request.changed, "stream", "n")}
    tally.wrong.append(f"{number}: {request.path} {status} {text[:300]!r} for {shown}")


COMPLETION = {
    "path": "/v1/completions",
    "body": {"prompt": "The answer is", "max_tokens": 5, "temperature": 0, "logprobs": 1},
}
EMBEDDING = {"path": "/v1/embeddings", "body": {"input": "The answer is"}}
