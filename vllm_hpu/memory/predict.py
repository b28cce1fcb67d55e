"""What an engine will take of a card's memory, from its limits and the sizes of its model.

A prediction for models of ``shapes/model.py``, never a measurement: what is printed before the
weights are loaded, and what limits to offer are searched with. Tensors are counted that
``attention/derive.py``, ``attention/paged.py``, ``attention/prefill.py`` and vLLM's sampler make.
"""

from __future__ import annotations

from vllm_hpu.memory.plan import Need
from vllm_hpu.shapes.key import GraphKey, decode_key, prefill_key
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.model import ModelShape

# Rows of logits that vLLM scores at once for prompt log-probabilities.
PROMPT_CHUNK = 1024
# Bytes of a request's row beside what grows with a limit: logit bias, bad words, stop tokens.
_ROW_BYTES = 16 << 10


def predict(model: ModelShape, limits: Limits, graphs: bool) -> Need:
    """The need of an engine.

    Args:
        model: one rank's share.
        limits: with the KV blocks that steps are planned for.
        graphs: whether forwards are kept as graphs, each with the memory its step takes.
    """
    steps = [step_bytes(key, model, limits) for key in _largest_keys(limits)]
    sampler = _sampler_bytes(model, limits)
    block = limits.block_size * model.kv_heads * model.head_size * model.kv_bytes
    return Need(
        weights=weight_bytes(model),
        buffers=_buffer_bytes(model, limits),
        steps=max(steps),
        sampler=sampler,
        graphs=sum(steps) + sampler if graphs else 0,
        kv_block=2 * model.layers * block,
        kv_least=limits.blocks_per_row + 1,
    )


def weight_bytes(model: ModelShape) -> int:
    """Layers, embedding and head; a head that shares the embedding's weights is counted too."""
    layer = model.attention_weights + model.router_weights + model.experts * model.expert_weights
    return (model.layers * layer + 2 * model.vocab * model.hidden) * model.parameter_bytes


def step_bytes(key: GraphKey, model: ModelShape, limits: Limits) -> int:
    """Most bytes that the forward of ``key`` takes at once."""
    of, size = model, limits.block_size
    width, kv = of.heads * of.head_size, of.kv_heads * of.head_size
    stream = key.tokens * (2 * of.hidden + 2 * width + 2 * kv) * of.activation_bytes
    inner = key.tokens * of.products * of.intermediate * of.experts_per_token * of.activation_bytes
    plans = attention = 0
    if key.decode_rows:
        queries = key.decode_blocks * limits.query_len
        # Mapping and its transposes; which key is seen, as integers, booleans and float32.
        plans += key.decode_blocks * key.decode_rows * (2 * of.activation_bytes + 5)
        plans += queries * size * 14
        # Gathered keys and values, queries and results per block, products and float32 scores.
        attention += 2 * key.decode_blocks * size * kv * of.activation_bytes
        attention += 2 * queries * width * of.activation_bytes
        attention += queries * of.heads * size * (of.activation_bytes + 8)
    if key.has_prefill:
        keys = key.prefill_blocks * size or key.tokens
        plans += key.tokens * keys * (of.activation_bytes + 2)
        attention += 2 * keys * kv * of.activation_bytes if key.prefill_blocks else 0
        attention += 2 * key.tokens * width * of.activation_bytes
    return stream + plans + max(inner, attention)


def _largest_keys(limits: Limits) -> list[GraphKey]:
    keys = [decode_key(limits, limits.max_num_seqs, limits.decode_blocks)]
    if limits.prefill_rows:
        for decode in {0, limits.mixed_blocks}:
            for context in {0, limits.prefill_blocks}:
                keys.append(prefill_key(limits, limits.step_tokens, decode, context))
    return keys


def _buffer_bytes(model: ModelShape, limits: Limits) -> int:
    """Token ids, two block tables, counts of tokens for penalties, hidden states to sample from."""
    row = (
        4 * limits.max_model_len
        + 8 * limits.blocks_per_row
        + 4 * model.vocab
        + model.vocab // 8
        + model.hidden * model.activation_bytes
        + _ROW_BYTES
    )
    return (limits.max_num_seqs + 1) * row + 32 * limits.max_num_batched_tokens


def _sampler_bytes(model: ModelShape, limits: Limits) -> int:
    """Logits, their float32 copy, sorted values with int64 places, probabilities and noise."""
    sampled = limits.max_num_seqs * limits.query_len
    scored = min(PROMPT_CHUNK, limits.max_num_batched_tokens)
    return model.vocab * max(sampled * 32, scored * 16)
