"""From vLLM's configuration to the shape plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_hpu.settings import settings
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.plan import ShapePlan

if TYPE_CHECKING:
    from vllm.config import VllmConfig

# Elements of one head's score mask in a planned prefill: half a GiB in bfloat16.
MAX_PREFILL_SCORES = 1 << 28


def limits_of(config: VllmConfig) -> Limits:
    """The bounds that every step of this engine obeys.

    Attention from a prefill is over the product of its tokens and the context of all prefill rows;
    planned contexts end where that product would exceed ``MAX_PREFILL_SCORES``. Rows that together
    have more are rare, and compile when they come.
    """
    scheduler = config.scheduler_config
    block_size = config.cache_config.block_size
    longest = -(-config.model_config.max_model_len // block_size)
    affordable = MAX_PREFILL_SCORES // (scheduler.max_num_batched_tokens * block_size)
    return Limits(
        max_num_seqs=scheduler.max_num_seqs,
        max_num_batched_tokens=scheduler.max_num_batched_tokens,
        max_model_len=config.model_config.max_model_len,
        block_size=block_size,
        query_len=1 + config.num_speculative_tokens,
        max_prefill_blocks=min(scheduler.max_num_seqs * longest, max(longest, affordable)),
    )


def plan_for(config: VllmConfig) -> ShapePlan:
    """The plan of this engine.

    Raises:
        ConfigurationError: bucket variables that contradict each other or the engine's limits.
    """
    return ShapePlan.from_settings(limits_of(config), settings())
