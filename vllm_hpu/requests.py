"""What a request may ask: limits of the worker's tables and types, checked where it comes in.

The worker keeps what requests ask in tables of a fixed width and in fixed types, and what does not
fit raises there, in the middle of a step that serves others too. Here it is refused before it is
queued, as a bad request that names the field and the limit. vLLM has checked its own rules before
(ranges, token ids within the vocabulary).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import msgspec
from vllm import envs
from vllm.exceptions import VLLMValidationError
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.worker.gpu.sample.logit_bias import (
    MAX_NUM_ALLOWED_TOKEN_IDS,
    MAX_NUM_LOGIT_BIAS_TOKENS,
    MAX_NUM_STOP_TOKEN_IDS,
)

from vllm_hpu import grammars
from vllm_hpu.errors import explain

INT32_MAX = 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

LARGEST_FACTOR = 2.0**100
"""Logits times, divided by or plus this stay finite in float32 (up to 2**128), as do their sums."""


@dataclass(frozen=True)
class Table:
    """A row of fixed width that each request has in a table of the worker.

    Attributes:
        field: the parameter that fills it.
        holds: what it holds, for the message.
        width: most entries.
        count: entries that a request would need.
    """

    field: str
    holds: str
    width: Callable[[], int]
    count: Callable[[SamplingParams], int]


TABLES = (
    Table(
        "allowed_token_ids",
        "allowed token ids",
        lambda: MAX_NUM_ALLOWED_TOKEN_IDS,
        lambda params: len(params.allowed_token_ids or ()),
    ),
    Table(
        "logit_bias",
        "biased tokens",
        lambda: MAX_NUM_LOGIT_BIAS_TOKENS,
        lambda params: len(params.logit_bias or ()),
    ),
    Table(
        "stop_token_ids",
        "stop token ids (with min_tokens; the model's own end tokens count)",
        lambda: MAX_NUM_STOP_TOKEN_IDS,
        lambda params: len(params.all_stop_token_ids) if params.min_tokens else 0,
    ),
    Table(
        "bad_words",
        "bad words",
        lambda: envs.VLLM_MAX_NUM_BAD_WORDS,
        lambda params: len(params.bad_words_token_ids or ()),
    ),
    Table(
        "bad_words",
        "tokens of bad words (with and without a space before each word)",
        lambda: envs.VLLM_MAX_BAD_WORDS_TOTAL_TOKENS,
        lambda params: sum(map(len, params.bad_words_token_ids or ())),
    ),
)


def check_params(params: SamplingParams | PoolingParams) -> None:
    """Check what a request says itself. Raises VLLMValidationError."""
    check_transport(params)
    if isinstance(params, SamplingParams):
        _check_numbers(params)
        grammars.check(params.structured_outputs)


def check_request(request: EngineCoreRequest, embeddings: int | None) -> None:
    """Check a request as the engine gets it, with what vLLM has derived. Raises as above.

    Args:
        embeddings: token ids that the model has an embedding for; None where the prompt also has
            ids of other things, such as images.
    """
    if request.prompt_token_ids and embeddings is not None:
        _check_prompt(request.prompt_token_ids, embeddings)
    for name in ("request_id", "cache_salt", "priority", "trace_headers", "session_id"):
        check_transport(getattr(request, name), name)
    params = request.sampling_params
    if params is None:
        return
    for table in TABLES:
        count, width = table.count(params), table.width()
        if count > width:
            raise _refusal(
                table.field,
                f"{table.field} needs {count} {table.holds}",
                f"A request's row of the device's table holds {width}",
                "Give fewer",
            )
    _check_length(request, params)


def _check_prompt(prompt: list[int], embeddings: int) -> None:
    # vLLM asks the tokenizer, too, which may know more tokens than the model, or not be there.
    for token in (min(prompt), max(prompt)):
        if not 0 <= token < embeddings:
            raise _refusal(
                "prompt",
                f"prompt has the token id {token}",
                f"The model has embeddings of {embeddings} tokens",
                f"Use ids from 0 to {embeddings - 1}",
            )


def check_transport(value: Any, name: str = "") -> None:
    """Check that a value can be sent to the engine: 64-bit integers, text without lone surrogates.

    Args:
        name: the field's name; fields of ``value``, if it has any, have their own.
    """
    rest = [(name, value)]
    while rest:
        name, value = rest.pop()
        if isinstance(value, int):
            _check_integer(name, value)
        elif isinstance(value, str):
            _check_text(name, value)
        else:
            rest.extend((part_name or name, part) for part_name, part in _parts(value))


def _check_integer(name: str, value: int) -> None:
    if not INT64_MIN <= value <= INT64_MAX:
        raise _refusal(
            name,
            f"{name} holds an integer of more than 64 bits",
            "",
            f"Use one from {INT64_MIN} to {INT64_MAX}",
        )


def _check_text(name: str, value: str) -> None:
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise _refusal(
            name,
            f"{name} holds half a surrogate pair",
            "It is no character and cannot be encoded in UTF-8",
            "Send both halves of the pair, or the character itself",
        )


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    """What a compound value consists of, with the names of its fields."""
    if isinstance(value, msgspec.Struct):
        return ((name, getattr(value, name)) for name in value.__struct_fields__)
    if is_dataclass(value):
        return ((field.name, getattr(value, field.name)) for field in fields(value))
    if isinstance(value, dict):
        return (("", part) for pair in value.items() for part in pair)
    if isinstance(value, (list, tuple, set)):
        return (("", part) for part in value)
    return ()


def _check_numbers(params: SamplingParams) -> None:
    seed = params.seed
    if seed is not None and seed + params.n - 1 > INT64_MAX:
        raise _refusal(
            "seed",
            f"seed is {seed}, with which the last of {params.n} sequences would have a seed of "
            f"more than 64 bits",
            "Sequence i of a request draws with seed + i",
            f"Use a seed of at most {INT64_MAX} - (n - 1)",
        )
    penalty = params.repetition_penalty
    if not 1 / LARGEST_FACTOR <= penalty <= LARGEST_FACTOR:
        raise _refusal(
            "repetition_penalty",
            f"repetition_penalty is {penalty}",
            "Logits are divided by and multiplied with it in float32",
            f"Use a value from {1 / LARGEST_FACTOR:.3g} to {LARGEST_FACTOR:.3g}",
        )
    for token, bias in (params.logit_bias or {}).items():
        # Minus infinity is the one that has a meaning: never this token.
        if math.isnan(bias) or bias > LARGEST_FACTOR or -math.inf < bias < -LARGEST_FACTOR:
            raise _refusal(
                "logit_bias",
                f"logit_bias of token {token} is {bias}",
                "It is added to logits in float32",
                f"Use a value from {-LARGEST_FACTOR:.3g} to {LARGEST_FACTOR:.3g}",
            )


def _check_length(request: EngineCoreRequest, params: SamplingParams) -> None:
    prompt = request.prompt_token_ids
    length = len(request.prompt_embeds) if prompt is None else len(prompt)  # type: ignore[arg-type]
    # min_tokens is no larger: vLLM has compared the two.
    most = INT32_MAX - length
    if params.max_tokens is not None and params.max_tokens > most:
        raise _refusal(
            "max_tokens",
            f"max_tokens is {params.max_tokens}",
            "Prompt and answer together are counted in 32 bits",
            f"Use at most {most}; no more than --max-model-len are generated anyway",
        )


def _refusal(field: str, what: str, why: str, do: str) -> VLLMValidationError:
    return VLLMValidationError(explain(what, why, do), parameter=field)
