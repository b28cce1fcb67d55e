"""From vLLM's configuration to the shape plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.options import settings_of
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.model import ModelShape
from vllm_hpu.shapes.plan import ShapePlan

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_LOWEST_BLOCKS = "VLLM_DECODE_BLOCK_BUCKET_MIN"
# Tokens of a KV block, the size Gaudi's paged attention is made for.
BLOCK_SIZE = 128
# Elements of one head's score mask in a planned prefill: half a GiB in bfloat16.
MAX_PREFILL_SCORES = 1 << 28


def engine_limits(
    max_num_seqs: int,
    max_num_batched_tokens: int,
    max_model_len: int,
    block_size: int,
    query_len: int = 1,
    num_blocks: int | None = None,
) -> Limits:
    """The bounds that every step of an engine with these limits obeys.

    Attention from a prefill is over the product of its tokens and the context of all prefill rows;
    planned contexts end where that product would exceed ``MAX_PREFILL_SCORES``. Rows that together
    have more are rare, and compile when they come. ``num_blocks`` ends the plan at so many KV
    blocks of decode and of prefill rows; see ``Limits`` for what that leaves out.
    """
    plain = Limits(max_num_seqs, max_num_batched_tokens, max_model_len, block_size, query_len)
    affordable = MAX_PREFILL_SCORES // (max_num_batched_tokens * block_size)
    context = min(max_num_seqs * plain.blocks_per_row, max(plain.blocks_per_row, affordable))
    if num_blocks is not None:
        context = min(context, num_blocks)
    return replace(plain, max_decode_blocks=num_blocks, max_prefill_blocks=context)


def limits_of(config: VllmConfig, num_blocks: int | None = None) -> Limits:
    """The bounds that every step of this engine obeys."""
    return engine_limits(
        config.scheduler_config.max_num_seqs,
        config.scheduler_config.max_num_batched_tokens,
        config.model_config.max_model_len,
        config.cache_config.block_size,
        1 + config.num_speculative_tokens,
        num_blocks,
    )


def shape_of(config: VllmConfig) -> ModelShape | None:
    """What costs are computed from: one rank's share of the model; None if its sizes are unknown.

    Models without attention heads or with other names for their sizes still get a plan.
    """
    model = config.model_config
    try:
        whole = ModelShape.from_config(model.hf_text_config.to_dict() | {"dtype": str(model.dtype)})
    except ConfigurationError:
        return None
    return whole.shard(config.parallel_config.tensor_parallel_size)


def plan_for(config: VllmConfig, num_blocks: int | None = None) -> ShapePlan:
    """The plan of this engine, up to ``num_blocks`` KV blocks in decode or prefill rows.

    Raises:
        ConfigurationError: bucket variables that contradict each other or the engine's limits, or
            a file of sizes or traffic that is missing or wrong.
    """
    limits, chosen = limits_of(config, num_blocks), settings_of(config)
    lowest = chosen.bucket_variables.get(_LOWEST_BLOCKS, 0)
    if num_blocks is not None and lowest > limits.decode_blocks:
        # Right for the engine's limits, but its memory allows less.
        buckets = {**chosen.bucket_variables, _LOWEST_BLOCKS: limits.decode_blocks}
        chosen = replace(chosen, bucket_variables=buckets)
    return ShapePlan.from_settings(limits, chosen, shape_of(config))
