"""A bad request costs only itself: a clear 4xx to its sender, and the engine lives on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "What is 1 + 1?"}]}
BAD: dict[str, dict[str, Any]] = {
    "unknown model": {"model": "nonesuch"},
    "prompt too long": {"messages": [{"role": "user", "content": "word " * 4000}]},
    "NaN temperature": {"temperature": float("nan")},
    "negative temperature": {"temperature": -1},
    "top_p above one": {"top_p": 1.5},
    "negative max_tokens": {"max_tokens": -5},
    "too many logprobs": {"logprobs": True, "top_logprobs": 10_000},
    "malformed schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "nonsense"}},
        }
    },
    "malformed regex": {"structured_outputs": {"regex": "(["}},
    "malformed grammar": {"structured_outputs": {"grammar": "root ::= ("}},
    "endless grammar": {"structured_outputs": {"grammar": "root ::= root"}},
    "structured outputs that are no object": {"structured_outputs": 5},
    "seed of the second sequence": {"n": 2, "seed": 2**63 - 1},
    "more stop tokens than the table holds": {
        "min_tokens": 1,
        "stop_token_ids": list(range(129)),
    },
    "more allowed tokens than the table holds": {"allowed_token_ids": [1] * 1025},
    "more tokens of bad words than the table holds": {
        "bad_words": [f"word {number} of many that are long enough" for number in range(64)]
    },
    "integer of more than 64 bits": {"top_k": 2**64},
    "half a surrogate pair": {"stop": ["\ud83d"]},
    "messages are no list": {"messages": "What is 1 + 1?"},
    "image for a text model": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}],
            }
        ]
    },
}


@pytest.fixture
def still_alive(client: openai.OpenAI) -> Iterator[None]:
    """After the test the engine still answers."""
    yield
    answer = client.chat.completions.create(**CHAT, max_tokens=3, temperature=0)
    assert answer.choices[0].message.content


@pytest.mark.usefixtures("still_alive")
@pytest.mark.parametrize("name", BAD)
def test_refused_with_a_reason(name: str, chat_server: str) -> None:
    # NaN is not JSON, but clients send it; httpx's own encoder refuses to.
    body = json.dumps(CHAT | BAD[name])
    answer = httpx.post(
        f"{chat_server}/v1/chat/completions",
        content=body,
        headers={"content-type": "application/json"},
        timeout=60,
    )
    assert 400 <= answer.status_code < 500, answer.text
    message = answer.json()["error"]["message"]
    assert len(message) > 10


@pytest.mark.usefixtures("still_alive")
def test_not_json(chat_server: str) -> None:
    answer = httpx.post(
        f"{chat_server}/v1/chat/completions",
        content=b"{",
        headers={"content-type": "application/json"},
    )
    assert 400 <= answer.status_code < 500


@pytest.mark.usefixtures("still_alive")
def test_a_refused_stream_of_responses_says_so(client: openai.OpenAI) -> None:
    more = {"stop_token_ids": [2**40]}
    stream = client.responses.create(model="demo", input="Hi", stream=True, extra_body=more)
    with pytest.raises(openai.APIError, match="out-of-vocab"):
        list(stream)
