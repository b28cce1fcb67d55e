"""Zeroing of newly allocated KV cache blocks.

Replaces two methods of `vllm.v1.worker.utils.KVBlockZeroer`, whose kernel writes through raw
addresses. The caches themselves are at hand, and all have blocks in their first dimension.
"""

from collections.abc import Iterable
from typing import Any

import torch
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.kv_cache_interface import AttentionSpec
from vllm.v1.worker.utils import AttentionGroup, KVBlockZeroer

_CACHES = "_hpu_caches"


def initialize(
    self: KVBlockZeroer,
    device: torch.device,
    attn_groups_iter: Iterable[AttentionGroup],
    kernel_block_sizes: list[int],
    static_forward_context: dict[str, Any],
    num_blocks: int,
    runner_only_attn_layers: set[str] | None = None,
) -> None:
    """Collect the caches of all attention layers. Replaces `KVBlockZeroer.__init__`.

    A cache whose blocks are smaller than the scheduler's has a multiple of num_blocks of them;
    those of one scheduler block are adjacent.
    """
    self.device = device
    caches: list[torch.Tensor] = []
    for group in attn_groups_iter:
        if not isinstance(group.kv_cache_spec, AttentionSpec):
            continue
        if group.kv_cache_group_id >= len(kernel_block_sizes):
            continue
        for name in group.layer_names:
            if name in (runner_only_attn_layers or ()):
                continue
            cache = static_forward_context[name].kv_cache
            if not isinstance(cache, torch.Tensor) or cache.device.type != device.type:
                continue
            if group.kernel_block_stride:
                cache = group.map_kv_cache_to_manager_blocks(cache, num_blocks)
            if cache.shape[0] % num_blocks:
                raise ValueError(
                    f"The KV cache of {name} has {cache.shape[0]} blocks, which is no multiple of "
                    f"the scheduler's {num_blocks}. The attention backend must keep blocks in the "
                    "first dimension of its cache."
                )
            caches.append(cache.unflatten(0, (num_blocks, -1)))
    # Not an attribute vLLM's class declares.
    vars(self)[_CACHES] = caches


def zero_block_ids(self: KVBlockZeroer, block_ids: list[int]) -> None:
    """Zero the given blocks in all caches. Replaces `KVBlockZeroer.zero_block_ids`."""
    caches: list[torch.Tensor] = vars(self)[_CACHES]
    if not block_ids or not caches:
        return
    # Few shapes: the list grows to a power of two by repeating its last block.
    size = 1 << (len(block_ids) - 1).bit_length()
    padded = block_ids + block_ids[-1:] * (size - len(block_ids))
    idx = async_tensor_h2d(padded, device=self.device, dtype=torch.int64)
    for cache in caches:
        cache.index_fill_(0, idx, 0)
