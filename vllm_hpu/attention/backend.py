"""What vLLM asks of an attention backend before it builds a layer."""

from typing import Any

import torch
from vllm.v1.attention.backend import AttentionBackend, AttentionType, MultipleOf
from vllm.v1.kv_cache_interface import KVCacheLayout

from vllm_hpu.attention.impl import HpuAttentionImpl
from vllm_hpu.attention.metadata import HpuAttentionMetadataBuilder
from vllm_hpu.engine_plan import BLOCK_SIZE

__all__ = ["HpuAttentionBackend"]


class HpuAttentionBackend(AttentionBackend):
    """Paged attention for decoders and dense attention for encoders."""

    supported_dtypes = [torch.bfloat16, torch.float16, torch.float32]
    supported_kv_cache_dtypes = ["auto", "bfloat16", "float16"]
    forward_includes_kv_cache_update = True

    @staticmethod
    def get_name() -> str:
        return "HPU_ATTN"

    @staticmethod
    def get_impl_cls() -> type[HpuAttentionImpl]:
        return HpuAttentionImpl

    @staticmethod
    def get_builder_cls() -> type[HpuAttentionMetadataBuilder]:
        return HpuAttentionMetadataBuilder

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: Any = None) -> list[int | MultipleOf]:
        return [MultipleOf(16)]

    @classmethod
    def get_preferred_block_size(cls, default_block_size: int) -> int:
        """The plugin's default, whatever vLLM's is; a size the user gave does not come here."""
        return BLOCK_SIZE

    @classmethod
    def supported_kv_cache_layouts(cls) -> tuple[KVCacheLayout, ...]:
        """Layouts that keep all of a block's heads of one layer together."""
        return (KVCacheLayout.LBHNC, KVCacheLayout.BLHNC)

    @classmethod
    def supports_sink(cls) -> bool:
        return True

    @classmethod
    def supports_sliding_window(cls) -> bool:
        return True

    @classmethod
    def supports_attn_type(cls, attn_type: str) -> bool:
        return attn_type in (AttentionType.DECODER, AttentionType.ENCODER_ONLY)
