"""Every endpoint through the independent `openai` client."""

from __future__ import annotations

import json
import math

import httpx
import openai

from tests.serve.send_requests import COMPLETION, EMBEDDING, send_all

MODEL = "demo"
FEW = 150  # generated requests; `make test-slow` sends more
QUESTION = [{"role": "user", "content": "What is 12 + 30?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather for a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


def test_chat_answers_right(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    assert "42" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 0


def test_chat_stream_equals_chat(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    chunks = list(
        client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stream=True)
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert sum(bool(chunk.choices and chunk.choices[0].finish_reason) for chunk in chunks) == 1


def test_chat_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, logprobs=True, top_logprobs=3
    )
    for token in answer.choices[0].logprobs.content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert token.logprob == max(top.logprob for top in token.top_logprobs)


def test_completions_with_echo(client: openai.OpenAI) -> None:
    prompt = "The capital of France is"
    answer = client.completions.create(
        model=MODEL, prompt=prompt, max_tokens=3, temperature=0, echo=True, logprobs=1
    )
    choice = answer.choices[0]
    assert choice.text.startswith(prompt)
    assert choice.logprobs.token_logprobs[0] is None
    assert all(math.isfinite(value) for value in choice.logprobs.token_logprobs[1:])
    assert len(choice.logprobs.tokens) == answer.usage.prompt_tokens + 3


def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="What is 12 + 30?", temperature=0)
    assert "42" in answer.output_text


def test_tool_call(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice="auto",
        temperature=0,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert answer.choices[0].finish_reason == "tool_calls"


def test_json_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"country": {"type": "string"}, "capital": {"type": "string"}},
        "required": ["country", "capital"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Give the capital of France as JSON."}],
        temperature=0,
        max_tokens=200,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "capital", "schema": schema},
        },
    )
    found = json.loads(answer.choices[0].message.content)
    assert found == {"country": "France", "capital": "Paris"}


def test_health_metrics_tokenize(chat_server: str, client: openai.OpenAI) -> None:
    client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=2)
    assert httpx.get(f"{chat_server}/health").status_code == 200
    metrics = httpx.get(f"{chat_server}/metrics").text
    (line,) = [
        line for line in metrics.splitlines() if line.startswith("vllm:generation_tokens_total")
    ]
    assert float(line.split()[-1]) > 0
    tokens = httpx.post(f"{chat_server}/tokenize", json={"model": MODEL, "prompt": "abc"}).json()
    assert tokens["count"] == len(tokens["tokens"]) > 0


def test_embeddings(embedding_server: str) -> None:
    client = openai.OpenAI(base_url=f"{embedding_server}/v1", api_key="none")
    texts = ["a cat sits on the mat", "the kitten is on the rug", "stock prices fell today"]
    rows = [one.embedding for one in client.embeddings.create(model="minilm", input=texts).data]
    near, far = (sum(a * b for a, b in zip(rows[0], other, strict=True)) for other in rows[1:])
    assert near > far
    assert all(math.isclose(sum(x * x for x in row), 1, abs_tol=1e-3) for row in rows)


def test_generated_requests_to_a_chat_server(chat_server: str) -> None:
    tally = send_all(chat_server, "demo", FEW, 0, COMPLETION)
    assert not tally.wrong, "\n".join(tally.wrong)


def test_generated_requests_to_an_embedding_server(embedding_server: str) -> None:
    tally = send_all(embedding_server, "minilm", FEW, 0, EMBEDDING)
    assert not tally.wrong, "\n".join(tally.wrong)
