"""Requests made from a server's own schema, with every field at its limits, beyond them and wrong.

Request ``i`` of a seed is always the same one for the same schema.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SURROGATE = "half a pair \ud800"
INTEGERS = (-(2**63) - 1, -(2**31) - 1, -2, -1, 0, 1, 2, 7, 128, 129, 1024, 1025)
INTEGERS += (2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**200)
FLOATS = (-1e308, -2.0, -0.1, -0.0, 0.0, 1e-320, 1e-45, 1e-30, 1e-5, 0.009, 0.5, 1.0, 1.0001, 2.0)
FLOATS += (2.1, 1e10, 1e30, 1e39, 1e308, float("nan"), float("inf"), -float("inf"))
TEXTS = ("", " ", "a", "\x00", SURROGATE, "\U0001f600", "\ufffd", "{{ 1 / 0 }}", "word " * 300)
FLAGS = (True, False, None, "true", 1, 0)
WRONG = (None, True, 0, -1, 1.5, "", "x", [], {}, [None], {"a": None}, [[]], [{}], SURROGATE)
DEEP: list[Any] = []
for _ in range(90):
    DEEP = [DEEP]

GRAMMARS: tuple[Any, ...] = (
    {"regex": "a**"},
    {"regex": "["},
    {"regex": ""},
    {"regex": "(a+)+b"},
    {"regex": "[0-9]{4}-[0-9]{2}"},
    {"regex": "a{100000}"},
    {"regex": "(?=a)b"},
    {"regex": SURROGATE},
    {"grammar": "root ::= root"},
    {"grammar": "root ::= a\na ::= b\nb ::= a"},
    {"grammar": 'root ::= "yes" | "no"'},
    {"grammar": "root ::="},
    {"grammar": "root ::= nothing"},
    {"grammar": "start: /[a-z]+/"},
    {"choice": []},
    {"choice": ["yes", "no"]},
    {"choice": ["", ""]},
    {"choice": [SURROGATE]},
    {"choice": ["x" * 1000] * 20},
    {"json": {"type": "object", "properties": {"age": {"type": "integer"}}}},
    {"json": {"type": "number", "multipleOf": 3}},
    {"json": {"$ref": "#"}},
    {"json": {"$ref": "#/nowhere"}},
    {"json": {"enum": []}},
    {"json": False},
    {"json": "{"},
    {"json": {"type": "integer", "minimum": 5, "maximum": 3}},
    {"json": {"type": "string", "pattern": "(["}},
    {"json": {"patternProperties": {"^a": {"type": "integer"}}}},
    {"json": {"items": DEEP}},
    {"json_object": True},
    {"json_object": False},
    {"json_object": True, "regex": "a"},
    {"structural_tag": "{"},
    {"structural_tag": '{"structures": [], "triggers": []}'},
    {"structural_tag": '{"type": "structural_tag", "format": {"type": "any_text"}}'},
    {"regex": "a", "_backend": "nonesuch"},
    {"regex": "a", "whitespace_pattern": "["},
    5,
    [],
    "x",
    {},
)
FORMATS: tuple[Any, ...] = (
    {"type": "text"},
    {"type": "json_object"},
    {"type": "json_schema"},
    {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}},
    {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}},
    {"type": "structural_tag", "format": {"type": "any_text"}},
    {"type": "nonsense"},
)
PROMPTS: tuple[Any, ...] = (
    "one two three",
    "word " * 2000,
    ["one", "two"],
    [1, 2, 3],
    [[1, 2], [3]],
    [],
    [[]],
    "",
    [767],
    [768],
    [-1],
    [2**31],
    [2**64],
    [1, "a"],
    ["a", 1],
    [True],
    [1.5],
    [30] * 5000,
    None,
    SURROGATE,
)
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CHATS: tuple[Any, ...] = (
    [],
    "hello",
    [{}],
    [{"role": "user"}],
    [{"role": "user", "content": None}],
    [{"role": "user", "content": []}],
    [{"role": "user", "content": ""}],
    [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    [{"role": "user", "content": [{"type": "nonsense"}]}],
    [{"role": "user", "content": [PICTURE]}],
    [{"role": "user", "content": SURROGATE}],
    [{"role": SURROGATE, "content": "a"}],
    [{"role": "nonsense", "content": "a"}],
    [{"role": "tool", "content": "a"}],
    [{"role": "tool", "tool_call_id": "x", "content": "a"}],
    [{"role": "assistant", "content": "a"}],
    [{"role": "assistant", "tool_calls": [{}]}],
    [{"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {}}]}],
    [{"role": "system", "content": "a"}] * 30,
)
CALL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
TOOLS: tuple[Any, ...] = (
    [],
    [{}],
    [CALL],
    [CALL, CALL],
    [{"type": "function", "function": {"name": ""}}],
    [{"type": "function", "function": {"name": "f", "parameters": {"type": "nonsense"}}}],
    [{"type": "function", "function": {"name": "f", "parameters": 5}}],
    [{"type": "nonsense"}],
    5,
)
TOOL_CHOICES = ("auto", "none", "required", "f", 5, {}, {"type": "function"})
TOOL_CHOICES += ({"type": "function", "function": {"name": "f"}},)  # type: ignore[assignment]
TOOL_CHOICES += ({"type": "function", "function": {"name": "g"}},)  # type: ignore[assignment]
TOKENS: tuple[Any, ...] = (
    [],
    [0],
    [1, 2, 3],
    [767],
    [768],
    [-1],
    [2**31],
    [2**64],
    [1] * 128,
    [1] * 1025,
    list(range(128)),
    list(range(129)),
    list(range(768)),
    [1.5],
    ["1"],
    "1",
    None,
)

# Values of fields whose type says too little. Other fields get values by their type.
VALUES: dict[str, tuple[Any, ...]] = {
    "structured_outputs": GRAMMARS,
    "response_format": FORMATS,
    "text": tuple({"format": one} for one in FORMATS),
    "prompt": PROMPTS,
    "input": PROMPTS,
    "text_1": PROMPTS,
    "text_2": PROMPTS,
    "query": PROMPTS,
    "queries": PROMPTS,
    "documents": PROMPTS,
    "items": PROMPTS,
    "messages": CHATS,
    "tools": TOOLS,
    "tool_choice": TOOL_CHOICES,
    "allowed_token_ids": TOKENS,
    "stop_token_ids": TOKENS,
    "logprob_token_ids": TOKENS,
    "label_token_ids": TOKENS,
    "tokens": TOKENS,
    "logit_bias": (
        {},
        {"1": 100},
        {"1": -100},
        {"1": 1e39},
        {"1": float("nan")},
        {"1": float("inf")},
        {"768": 1},
        {"-1": 1},
        {"a": 1},
        {str(2**64): 1},
        {str(token): 1 for token in range(768)},
        {"1": "x"},
        {"1": None},
    ),
    "bad_words": (
        [],
        [""],
        [" "],
        ["word"],
        ["word"] * 200,
        [f"word {i}" for i in range(100)],
        [f"word {i}" for i in range(300)],
        ["x" * 5000],
        [SURROGATE],
        [1],
        "word",
    ),
    "stop": ("", "a", [], [""], ["a"] * 100, ["a" * 5000], SURROGATE, [SURROGATE], [1], 5),
    "repetition_detection": (
        {},
        {"max_pattern_size": 3, "min_count": 2},
        {"max_pattern_size": 2**31, "min_count": 2},
        {"max_pattern_size": 2**64, "min_count": 2},
        {"max_pattern_size": -1},
        {"max_pattern_size": 4, "min_pattern_size": 5, "min_count": 2},
        {"max_pattern_size": 4, "min_count": 2**64},
        5,
    ),
    "stream_options": (
        {"include_usage": True},
        {"include_usage": True, "continuous_usage_stats": True},
        {"include_usage": 5},
        {},
        5,
    ),
    "vllm_xargs": ({"a": 1}, {"a": 2**64}, {"a": SURROGATE}, {"a": [1, "b"]}, {"a": {}}, 5),
    "chat_template": ("", "{{ messages }}", "{% for", "{{ 1 / 0 }}", "{{ nothing.there }}", 5),
    "chat_template_kwargs": ({}, {"a": 2**64}, {"a": SURROGATE}, {"messages": []}, {"a": DEEP}, 5),
    # Not in between: what is accepted is generated.
    "n": (-1, 0, 1, 2, 3, 5, 16385, 2**31, 2**63, 2**64, "2", None, 1.5),
    "model": ("demo", "nonesuch", "", SURROGATE, None, 5),
    "prompt_embeds": ("", "AAAA", "!", [""], [], 5),
    "encoding_format": ("float", "base64", "bytes", "nonsense", None, 5),
}
# Valid requests. Sampling fields of the first are what the others are measured by.
CHAT = [{"role": "user", "content": "What is 1 + 1?"}]
BASES: dict[str, tuple[dict[str, Any], ...]] = {
    "/v1/completions": (
        {"prompt": "one two three", "max_tokens": 3},
        {"prompt": [30, 31, 32, 33], "max_tokens": 3, "logprobs": 3, "echo": True, "n": 2},
        {"prompt": ["one", "two"], "max_tokens": 3, "stream": True, "n": 2, "logprobs": 1},
        {"prompt": "one two", "max_tokens": 3, "stream": True, "echo": True, "logprobs": 2},
        {"prompt": "one two", "max_tokens": 0, "echo": True, "prompt_logprobs": 1},
        {"prompt": "one two", "max_tokens": 4, "min_tokens": 2, "top_k": 5, "seed": 3},
        {"prompt": "one two", "max_tokens": 3, "use_beam_search": True, "n": 2},
    ),
    "/v1/chat/completions": (
        {"messages": CHAT, "max_tokens": 3},
        {"messages": CHAT, "max_tokens": 3, "logprobs": True, "top_logprobs": 2, "n": 2},
        {"messages": CHAT, "max_tokens": 3, "stream": True, "n": 2},
        {"messages": CHAT, "max_tokens": 3, "tools": [CALL], "tool_choice": "auto"},
        {"messages": CHAT, "max_completion_tokens": 3, "min_tokens": 2, "seed": 3},
    ),
    "/v1/chat/completions/batch": ({"messages": [CHAT, CHAT], "max_tokens": 3},),
    "/v1/responses": (
        {"input": "one two three", "max_output_tokens": 3},
        {"input": CHAT, "max_output_tokens": 3, "stream": True},
        {"input": "one two", "max_output_tokens": 3, "top_k": 5, "top_logprobs": 2},
    ),
    "/v1/messages": (
        {"model": "demo", "messages": CHAT, "max_tokens": 3},
        {"model": "demo", "messages": CHAT, "max_tokens": 3, "stream": True, "top_k": 5},
    ),
    "/v1/messages/count_tokens": ({"model": "demo", "messages": CHAT},),
    "/tokenize": ({"prompt": "one two three"}, {"messages": CHAT}),
    "/detokenize": ({"tokens": [30, 31, 32]},),
    "/generative_scoring": (
        {"query": "one", "items": ["two", "three"], "label_token_ids": [1, 2]},
    ),
    "/v1/systemone": ({"state": "one", "questions": ["two"]},),
    "/invocations": ({"prompt": "one two three", "max_tokens": 3}, {"messages": CHAT}),
    "/v1/embeddings": ({"input": "one two three"}, {"input": [[30, 31], [32]]}),
    "/pooling": ({"input": "one two three"},),
    "/score": ({"text_1": "one", "text_2": ["two", "three"]},),
    "/v1/score": ({"text_1": "one", "text_2": "two"},),
    "/rerank": ({"query": "one", "documents": ["two", "three"]},),
    "/v1/rerank": ({"query": "one", "documents": ["two", "three"], "top_n": 1},),
    "/v2/rerank": ({"query": "one", "documents": ["two"]},),
    "/v2/embed": ({"model": "demo", "texts": ["one two"], "input_type": "query"},),
}
# Endpoints that are no questions.
LEFT_OUT = {
    "/ping": "answers nothing but that it is there",
    "/scale_elastic_ep": "changes the server",
    "/is_scaling_elastic_ep": "changes the server",
    "/v1/responses/{response_id}/cancel": "is about another request",
}


@dataclass(frozen=True)
class Request:
    """One generated request.

    Attributes:
        changed: the fields that differ from a valid request.
        patience: seconds after which the client hangs up; None to wait for the answer.
    """

    path: str
    body: Any
    changed: tuple[str, ...]
    patience: float | None


class Generator:
    """Makes requests to the endpoints of one server."""

    def __init__(self, schema: dict[str, Any], model: str, seed: int) -> None:
        self._parts = schema.get("components", {}).get("schemas", {})
        self._model, self._seed = model, seed
        posts = [path for path, methods in schema["paths"].items() if "post" in methods]
        self.unknown = [path for path in posts if path not in BASES and path not in LEFT_OUT]
        self.paths = [path for path in posts if path in BASES]
        self._fields = {path: self._fields_of(schema["paths"][path]["post"]) for path in self.paths}

    def request(self, number: int) -> Request:
        draw = random.Random(f"{self._seed} {number}")
        # Endpoints with more fields have more that can go wrong.
        weights = [len(self._fields[path]) + 5 for path in self.paths]
        path = draw.choices(self.paths, weights)[0]
        body = dict(draw.choice(BASES[path]))
        if "model" in body:
            body["model"] = self._model
        changed = []
        for _ in range(draw.choice((0, 1, 1, 1, 2, 2, 3, 5))):
            field = self._some_field(draw, path)
            body[field] = self._value(draw, path, field)
            changed.append(field)
        if draw.random() < 0.01:
            body, changed = draw.choice((*WRONG, DEEP)), ["the body"]  # type: ignore[assignment]
        patience = draw.uniform(0.0, 0.3) if draw.random() < 0.05 else None
        return Request(path, body, tuple(changed), patience)

    def _some_field(self, draw: random.Random, path: str) -> str:
        fields = self._fields[path]
        if not fields or draw.random() < 0.02:
            return draw.choice((*VALUES, "nonsense", "temperature", "max_tokens"))
        return draw.choice(sorted(fields))

    def _value(self, draw: random.Random, path: str, field: str) -> Any:
        # A request for a thousand sequences is a good one, which takes its time.
        if field != "n" and draw.random() < 0.15:
            return draw.choice((*WRONG, DEEP, *INTEGERS))
        if field in VALUES and not (field == "text" and path != "/v1/responses"):
            return draw.choice(VALUES[field])
        values: list[Any] = []
        for kind in self._kinds(self._fields[path].get(field, {})):
            values += {
                "integer": INTEGERS,
                "number": FLOATS,
                "string": TEXTS,
                "boolean": FLAGS,
            }.get(kind, (kind,) if kind not in ("array", "object") else WRONG)
        return draw.choice(values or WRONG)

    def _fields_of(self, operation: dict[str, Any]) -> dict[str, Any]:
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        fields: dict[str, Any] = {}
        for one in self._resolved(body.get("schema", {})):
            fields |= one.get("properties", {})
        return fields

    def _kinds(self, schema: dict[str, Any]) -> Iterator[Any]:
        """Types that a field may have, and values of enumerations."""
        for one in self._resolved(schema):
            yield from one.get("enum", ())
            if "const" in one:
                yield one["const"]
            elif "type" in one and "enum" not in one:
                yield one["type"]

    def _resolved(self, schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The alternatives of a schema without references."""
        if "$ref" in schema:
            yield from self._resolved(self._parts[schema["$ref"].rpartition("/")[2]])
        for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            yield from self._resolved(one)
        if "$ref" not in schema and "anyOf" not in schema and "oneOf" not in schema:
            yield schema
