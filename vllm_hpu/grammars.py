"""Grammars that the engine would refuse, or that admit nothing, found where a request comes in.

vLLM parses a grammar in the front end and compiles it in the engine. What only the compiler refuses
ends a request there as an internal error; a grammar by which no text at all can be written does so
at its first token. Here it is compiled for a vocabulary of the 256 bytes, which takes about a
millisecond and needs no tokenizer, and asked what may come first.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.structured_output.backend_types import StructuredOutputOptions
from vllm.v1.structured_output.request import get_structured_output_key
from vllm.v1.structured_output.utils import compile_regex_with_timeout, grammar_is_likely_lark

from vllm_hpu.errors import explain

_BYTES = 256
_VOCABULARY = _BYTES + 1  # and the end token
_CACHE_BYTES = 16 << 20


def check(asked: StructuredOutputsParams | None) -> None:
    """Raise VLLMValidationError for a grammar that cannot be compiled or that admits nothing.

    Grammars of other libraries than xgrammar were compiled by vLLM's own check.
    """
    if asked is None or asked._backend != "xgrammar":
        return
    kind, text = get_structured_output_key(asked)
    if _needs_tokenizer(kind, text):
        return
    field = f"structured_outputs.{kind.name.lower()}"
    try:
        first = _first_bytes(kind, text)
    except VLLMValidationError:
        raise
    # Whatever the library raises here it would raise in the engine.
    except Exception as error:
        raise _refusal(field, f"{field} cannot be compiled: {error}") from error
    if not first:
        raise _refusal(
            field,
            f"{field} admits no text",
            "No character can come first: every alternative refers back to itself",
            "Give it an alternative that ends",
        )


def _needs_tokenizer(kind: StructuredOutputOptions, text: str) -> bool:
    """Whether the grammar may name tokens, which bytes are not."""
    if kind is StructuredOutputOptions.GRAMMAR:
        return "Token" in text or grammar_is_likely_lark(text)
    return kind is StructuredOutputOptions.STRUCTURAL_TAG


def _first_bytes(kind: StructuredOutputOptions, text: str) -> int:
    """How many bytes can come first, the end counted as one."""
    import xgrammar

    matcher = xgrammar.GrammarMatcher(_compile(kind, text))
    mask = xgrammar.allocate_token_bitmask(1, _VOCABULARY)
    matcher.fill_next_token_bitmask(mask)
    bits = (mask[0].to(torch.int64)[:, None] >> torch.arange(32)) & 1
    return int(bits.flatten()[:_VOCABULARY].sum())


def _compile(kind: StructuredOutputOptions, text: str) -> Any:
    compiler = _compiler()
    if kind is StructuredOutputOptions.JSON:
        return compiler.compile_json_schema(text)
    if kind is StructuredOutputOptions.JSON_OBJECT:
        return compiler.compile_json_schema('{"type": "object"}')
    if kind is StructuredOutputOptions.REGEX:
        return compile_regex_with_timeout(compiler.compile_regex, text)
    return compiler.compile_grammar(text)


@functools.cache
def _compiler() -> Any:
    import xgrammar

    vocabulary = [bytes([byte]) for byte in range(_BYTES)] + [b"<end>"]
    info = xgrammar.TokenizerInfo(
        vocabulary,
        vocab_type=xgrammar.VocabType.RAW,
        vocab_size=_VOCABULARY,
        stop_token_ids=[_BYTES],
    )
    return xgrammar.GrammarCompiler(
        info, max_threads=1, cache_enabled=True, cache_limit_bytes=_CACHE_BYTES
    )


def _refusal(field: str, what: str, why: str = "", do: str = "") -> VLLMValidationError:
    return VLLMValidationError(explain(what, why, do), parameter=field)
