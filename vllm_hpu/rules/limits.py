"""Numbers and types that cannot work on the cards that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_hpu.engine_plan import BLOCK_SIZE
from vllm_hpu.errors import ConfigurationError, UnsupportedFeatureError

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def legal_block_size(config: VllmConfig) -> None:
    """Paged attention reads whole rows of 16 tokens."""
    cache = config.cache_config
    if cache is not None and cache.block_size is not None and cache.block_size % 16:
        raise ConfigurationError(
            f"--block-size {cache.block_size} does not work on Gaudi",
            "It must be a multiple of 16",
            f"Use --block-size {BLOCK_SIZE}",
        )


def enough_cards(config: VllmConfig) -> None:
    """One card per rank of this host; missing ones are found before workers are started."""
    from vllm_hpu.device.info import device_info

    parallel = config.parallel_config
    if parallel.distributed_executor_backend == "ray":
        return  # Ray places ranks on hosts that this process does not see
    info = device_info()
    if parallel.local_world_size > info.count:
        raise ConfigurationError(
            f"{parallel.local_world_size} cards are needed on this host and {info.count} "
            f"{'is' if info.count == 1 else 'are'} visible",
            "Every rank of --tensor-parallel-size has a card of its own",
            "Lower --tensor-parallel-size, or make more cards visible (HABANA_VISIBLE_MODULES)",
        )


def supported_kv_cache_dtype(config: VllmConfig) -> None:
    """Keys and values are written to the cache as the model makes them."""
    from vllm.utils.torch_utils import STR_DTYPE_TO_TORCH_DTYPE

    cache, model = config.cache_config, config.model_config
    if cache is None or model is None or cache.cache_dtype == "auto":
        return
    if STR_DTYPE_TO_TORCH_DTYPE.get(cache.cache_dtype) != model.dtype:
        raise UnsupportedFeatureError(
            f"--kv-cache-dtype {cache.cache_dtype} is not supported on Gaudi by this version of "
            f"vllm-hpu",
            f"The KV cache has the model's type, {model.dtype}",
            "Use --kv-cache-dtype auto, or choose both types with --dtype",
        )


def legal_shape_plan(config: VllmConfig) -> None:
    """Contradictory bucket variables end here, in the front end, with their names."""
    from vllm_hpu.engine_plan import plan_for

    if config.model_config is not None and config.cache_config is not None:
        plan_for(config)
