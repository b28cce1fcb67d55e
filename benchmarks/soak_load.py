"""Mixed requests on a server for as long as a run takes, at a constant number in flight."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.engine.cases import FIRST_TOKEN, LAST_TOKEN
from tests.serve.load import LETTER, request

REPLY_SECONDS = 300.0
"""A request without an answer after this time has lost it."""
SHOWN = 20  # errors that are kept in words

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


class LostReply(Exception):
    """A request that ended without an answer and without an error."""


@dataclass
class Replies:
    """What became of the requests so far.

    outcomes  answered, cancelled (by the client), refused (an error of the server), lost
    features  in how many each field took part
    errors    the first ones, in words
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def failed(self, outcome: str, error: Exception, asked: dict[str, Any]) -> None:
        self.outcomes[outcome] += 1
        if len(self.errors) < SHOWN:
            rest = {name: value for name, value in asked.items() if name != "prompt"}
            self.errors.append(f"{outcome}: {error!r} for {rest}")


class Load:
    """Clients that ask one request after the other."""

    def __init__(self, url: str, models: tuple[str, ...], longest: int, seed: int) -> None:
        """
        Args:
            models: names the server knows, of the base model and of its adapters.
            longest: most tokens of a request, prompt and answer together.
        """
        self.replies = Replies()
        self._url = url
        self._models = models
        self._longest = longest
        self._source = random.Random(seed)
        # Prompts begin with one of these, so that the prefix cache has something to find.
        self._prefixes = [self._tokens(longest // 2) for _ in range(4)]

    async def touch_blocks(self, tokens: int, width: int) -> None:
        """Fill the KV cache with prompts nobody asked before, ``tokens`` in all."""
        length = self._longest - 8
        count = itertools.count()

        async def fill() -> None:
            while next(count) * length < tokens:
                body = {"prompt": self._tokens(length), "max_tokens": 1}
                await self._one(client, "/v1/completions", body | {"model": self._models[0]}, None)

        async with self._client() as client:
            await asyncio.gather(*(fill() for _ in range(width)))

    async def run(self, end: float, width: int) -> None:
        """Keep ``width`` requests in flight until ``end`` (``time.monotonic``), then wait."""

        async def ask() -> None:
            while time.monotonic() < end:
                path, body = self._draw()
                cancel = self._source.random() < 0.15
                patience = self._source.uniform(0.0, 1.0) if cancel else None
                await self._one(client, path, body, patience)

        async with self._client() as client:
            await asyncio.gather(*(ask() for _ in range(width)))

    def _client(self) -> httpx.AsyncClient:
        # Below the idle time after which the server closes a connection (5 s).
        limits = httpx.Limits(keepalive_expiry=2.0, max_connections=None)
        return httpx.AsyncClient(base_url=self._url, timeout=None, limits=limits)

    def _tokens(self, length: int) -> list[int]:
        found = [self._source.randint(FIRST_TOKEN, LAST_TOKEN) for _ in range(length - 1)]
        return [*found, LETTER]

    def _draw(self) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        source = self._source
        model = source.choice(self._models)
        if source.random() < 0.15:
            return "/v1/chat/completions", self._chat(model)
        body = request(source, model, self._longest)
        room = self._longest - body["max_tokens"] - len(body["prompt"])
        if source.random() < 0.3:
            body["prompt"] = source.choice(self._prefixes)[: max(room, 0)] + body["prompt"]
        if source.random() < 0.15 and "prompt_logprobs" not in body:
            body["echo"] = True
        return "/v1/completions", body

    def _chat(self, model: str) -> dict[str, Any]:
        source = self._source
        numbers = source.randint(10, 99), source.randint(10, 99)
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": "What is {} + {}?".format(*numbers)}],
            "max_tokens": 40,
            "stream": source.random() < 0.5,
        }
        if source.random() < 0.5:
            schema = {"name": "person", "schema": PERSON}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if source.random() < 0.3:
            body |= {"logprobs": True, "top_logprobs": 3}
        return body

    async def _one(
        self, client: httpx.AsyncClient, path: str, body: dict[str, Any], patience: float | None
    ) -> None:
        self.replies.features.update(name for name, value in body.items() if value)
        try:
            async with asyncio.timeout(REPLY_SECONDS if patience is None else patience):
                await _answer(client, path, body)
        except TimeoutError as error:
            if patience is None:
                self.replies.failed("lost", error, body)
            else:
                self.replies.outcomes["cancelled"] += 1  # closing the connection cancels it
        except (httpx.TransportError, LostReply) as error:
            self.replies.failed("lost", error, body)
            await asyncio.sleep(0.5)  # a server that is gone refuses at once
        except Exception as error:
            self.replies.failed("refused", error, body)
        else:
            self.replies.outcomes["answered"] += 1


async def _answer(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    """Read an answer to its end.

    Raises:
        LostReply: it ends before all of its choices have.
        RuntimeError: the server says what is wrong.
    """
    ended: set[int] = set()
    if not body.get("stream"):
        reply = await client.post(path, json=body)
        if reply.status_code != 200:
            raise RuntimeError(reply.text)
        ended |= {one["index"] for one in reply.json()["choices"] if one["finish_reason"]}
    else:
        done = False
        async with client.stream("POST", path, json=body) as reply:
            if reply.status_code != 200:
                raise RuntimeError((await reply.aread()).decode())
            async for line in reply.aiter_lines():
                if not line.startswith("data: "):
                    continue
                if done := line == "data: [DONE]":
                    break
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise RuntimeError(line)
                ended |= {one["index"] for one in chunk["choices"] if one["finish_reason"]}
        if not done:
            raise LostReply("the stream broke off")
    if ended != set(range(body.get("n", 1))):
        raise LostReply(f"only the choices {sorted(ended)} have an end")
