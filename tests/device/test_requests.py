"""What a request may ask is checked before it is queued, against what the worker's tables hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import RepetitionDetectionParams, StructuredOutputsParams
from vllm.v1.engine import EngineCoreRequest

from vllm_hpu.platform import HpuPlatform
from vllm_hpu.requests import check_request

# A request at each limit, and the next beyond it.
PARAMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "seed": ({"seed": 2**63 - 1}, {"seed": 2**63}),
    "seed of n": ({"n": 2, "seed": 2**63 - 2}, {"n": 2, "seed": 2**63 - 1}),
    "negative seed": ({"seed": -(2**63)}, {"seed": -(2**63) - 1}),
    "top_k": ({"top_k": 2**63 - 1}, {"top_k": 2**64}),
    "large repetition_penalty": ({"repetition_penalty": 1e30}, {"repetition_penalty": 1e31}),
    "small repetition_penalty": ({"repetition_penalty": 1e-30}, {"repetition_penalty": 1e-31}),
    "stop": ({"stop": ["\U0001f600"]}, {"stop": ["\ud83d"]}),
    "bad_words": ({"bad_words": ["\U0001f600"]}, {"bad_words": ["\ud83d"]}),
    "extra_args": ({"extra_args": {"a": ["b"]}}, {"extra_args": {"a": ["\ud83d"]}}),
    "stream_interval": ({"stream_interval": 2**63 - 1}, {"stream_interval": 2**63}),
    "max_pattern_size": (
        {"repetition_detection": RepetitionDetectionParams(2**63 - 1, 0, 2)},
        {"repetition_detection": RepetitionDetectionParams(2**63, 0, 2)},
    ),
    "large logit_bias": ({"logit_bias": {1: 1e30}}, {"logit_bias": {1: 1e31}}),
    "small logit_bias": ({"logit_bias": {1: -math.inf}}, {"logit_bias": {1: -1e31}}),
    "no number as logit_bias": ({"logit_bias": {1: 0.0}}, {"logit_bias": {1: math.nan}}),
    "infinite logit_bias": ({"logit_bias": {}}, {"logit_bias": {1: math.inf}}),
}
REQUESTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "stop_token_ids": (
        {"min_tokens": 1, "stop_token_ids": list(range(128))},
        {"min_tokens": 1, "stop_token_ids": list(range(129))},
    ),
    "stop_token_ids without min_tokens": (
        {"stop_token_ids": list(range(1000))},
        {"min_tokens": 1, "stop_token_ids": list(range(1000))},
    ),
    "allowed_token_ids": ({"allowed_token_ids": [1] * 1024}, {"allowed_token_ids": [1] * 1025}),
    "logit_bias": (
        {"logit_bias": dict.fromkeys(range(1024), 1.0)},
        {"logit_bias": dict.fromkeys(range(1025), 1.0)},
    ),
    "number of bad_words": (
        {"_bad_words_token_ids": [[1]] * 128},
        {"_bad_words_token_ids": [[1]] * 129},
    ),
    "tokens of bad_words": (
        {"_bad_words_token_ids": [[1] * 1024]},
        {"_bad_words_token_ids": [[1] * 1000, [1] * 25]},
    ),
    "max_tokens": ({"max_tokens": 2**31 - 4}, {"max_tokens": 2**31 - 3}),
}
GRAMMARS: dict[str, tuple[dict[str, Any], str]] = {
    "two repetitions": ({"regex": "a**"}, "Two consecutive repetition modifiers"),
    "lookahead": ({"regex": "(?=a)b"}, "Lookahead is not supported"),
    "endless": ({"grammar": "root ::= root"}, "admits no text"),
    "endless in three rules": ({"grammar": "root ::= a\na ::= b\nb ::= a"}, "admits no text"),
    "endless schema": ({"json": '{"$ref": "#"}'}, "admits no text"),
    "schema of nothing": ({"json": '{"enum": []}'}, "enum array must not be empty"),
}
GOOD_GRAMMARS: tuple[dict[str, Any], ...] = (
    {"regex": "[0-9]{4}"},
    {"regex": ""},
    {"grammar": 'root ::= ""'},
    {"grammar": 'root ::= "a" root | "b"'},
    {"grammar": "start: /[a-z]+/"},
    {"json": {"type": "object"}},
    {"json_object": True},
    {"structural_tag": '{"structures": [], "triggers": []}'},
)

# Who bounds each field that the worker gets: vLLM's own range, the vocabulary, this plugin, or
# nobody has to (a flag, or the front end's).
BOUNDED = {
    "vllm": "n presence_penalty frequency_penalty temperature top_p min_p min_tokens logprobs "
    "prompt_logprobs logprob_token_ids prompt_logprob_token_ids prompt_logprob_start "
    "thinking_token_budget repetition_detection routed_experts_prompt_start trace_decode_token_ids",
    "here": "seed top_k repetition_penalty max_tokens stop_token_ids _all_stop_token_ids "
    "allowed_token_ids logit_bias bad_words _bad_words_token_ids structured_outputs extra_args "
    "stop stream_interval",
    "free": "watermarking ignore_eos flat_logprobs detokenize skip_special_tokens "
    "spaces_between_special_tokens include_stop_str_in_output output_kind skip_clone "
    "output_text_buffer_length _eos_token_id _watermarking_skipped skip_reading_prefix_cache",
}


def request_of(**fields: Any) -> EngineCoreRequest:
    private = {name: fields.pop(name) for name in [*fields] if name.startswith("_")}
    params = SamplingParams(**fields)
    for name, value in private.items():
        setattr(params, name, value)
    return EngineCoreRequest(
        request_id="a",
        prompt_token_ids=[1, 2, 3],
        mm_features=None,
        sampling_params=params,
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )


@pytest.mark.parametrize("name", PARAMS)
def test_what_a_request_says_is_checked(name: str) -> None:
    good, bad = PARAMS[name]
    HpuPlatform.validate_request({}, SamplingParams(**good))  # type: ignore[typeddict-item]
    with pytest.raises(VLLMValidationError) as refused:
        HpuPlatform.validate_request({}, SamplingParams(**bad))  # type: ignore[typeddict-item]
    assert refused.value.parameter is not None
    assert refused.value.parameter in name
    assert str(refused.value).startswith(refused.value.parameter)


@pytest.mark.parametrize("name", REQUESTS)
def test_what_follows_from_it_is_checked(name: str) -> None:
    good, bad = REQUESTS[name]
    check_request(request_of(**good), None)
    with pytest.raises(VLLMValidationError) as refused:
        check_request(request_of(**bad), None)
    field = refused.value.parameter
    assert field is not None
    assert field in name
    limit = {"stop_token_ids": "128", "max_tokens": f"{2**31 - 4}"}.get(field, "1024")
    assert limit in str(refused.value) or "128" in str(refused.value)


def test_the_envelope_is_checked() -> None:
    for name, value in (("request_id", "\ud800"), ("priority", 2**63), ("cache_salt", "\udfff")):
        request = request_of()
        setattr(request, name, value)
        with pytest.raises(VLLMValidationError, match=name):
            check_request(request, None)


@pytest.mark.parametrize("token", [-1, 4, 2**31, 2**64])
def test_prompts_are_within_the_embeddings(token: int) -> None:
    request = request_of()
    check_request(request, 4)
    request.prompt_token_ids = [1, token, 2]
    with pytest.raises(VLLMValidationError, match=rf"token id {token}\. .* ids from 0 to 3"):
        check_request(request, 4)


def test_pooling_is_checked() -> None:
    HpuPlatform.validate_request({}, PoolingParams(dimensions=8))  # type: ignore[typeddict-item]
    with pytest.raises(VLLMValidationError, match="dimensions"):
        HpuPlatform.validate_request({}, PoolingParams(dimensions=2**64))  # type: ignore[typeddict-item]


def test_numbers_within_the_limits_stay_finite_in_float32() -> None:
    """Logits of real models are below 2**27."""
    logit = np.float32(2.0**27)
    for factor in (1e30, 1e-30):
        assert np.isfinite(logit * np.float32(factor))
        assert np.isfinite(logit / np.float32(factor))
    assert np.isfinite(logit + np.float32(1e30))


@pytest.mark.parametrize("name", GRAMMARS)
def test_grammars_that_cannot_be_obeyed_are_refused(name: str) -> None:
    constraint, reason = GRAMMARS[name]
    with pytest.raises(VLLMValidationError, match=reason):
        validate_grammar(**constraint)


@pytest.mark.parametrize("constraint", GOOD_GRAMMARS, ids=str)
def test_grammars_that_can_be_are_not(constraint: dict[str, Any]) -> None:
    validate_grammar(**constraint)


def validate_grammar(**constraint: Any) -> None:
    asked = StructuredOutputsParams(**constraint)
    asked._backend = "xgrammar"  # as vLLM's own check leaves it
    params = SamplingParams(structured_outputs=asked)
    HpuPlatform.validate_request({}, params)  # type: ignore[typeddict-item]


def test_every_field_is_looked_at() -> None:
    """A field that is new in vLLM needs somebody who bounds it."""
    known = [name for names in BOUNDED.values() for name in names.split()]
    assert sorted(known) == sorted(SamplingParams.__struct_fields__)
