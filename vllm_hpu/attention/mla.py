"""Multi-head latent attention: every token attends in the latent space.

vLLM's layer sends decode tokens through the absorbed form (queries projected into the latent space,
one shared key-value head) and prefill tokens through the expanded one, cut at the step's number of
decode tokens: a shape that follows the traffic. Here the metadata calls every token a decode
token, so the layer's own absorbed path serves all with the key's shapes. A latent is key and value
at once: the value product runs over its whole width, and the rotary part of the result is dropped.
"""

from typing import Any

import torch
from vllm.v1.attention.backend import AttentionType, MLAAttentionImpl
from vllm.v1.attention.backends.mla.prefill.base import MLAPrefillBackend

from vllm_hpu.attention.backend import HpuAttentionBackend
from vllm_hpu.attention.cache import PageLayout, page_view
from vllm_hpu.attention.impl import paged_attention
from vllm_hpu.attention.metadata import HpuAttentionMetadata
from vllm_hpu.attention.plans import Need

__all__ = ["HpuMLABackend", "HpuMLAImpl", "HpuMLAPrefillBackend"]


class HpuMLAImpl(MLAAttentionImpl[HpuAttentionMetadata]):
    """Latent attention over the paged latent cache."""

    supports_pcp = False
    supports_dense_mha_prefill = False

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int,
        alibi_slopes: list[float] | None,
        sliding_window: int | None,
        kv_cache_dtype: str,
        logits_soft_cap: float | None,
        attn_type: str,
        kv_sharing_target_layer_name: str | None,
        q_lora_rank: int | None,
        kv_lora_rank: int,
        qk_nope_head_dim: int,
        qk_rope_head_dim: int,
        qk_head_dim: int,
        v_head_dim: int,
        kv_b_proj: Any,
        indexer: object | None = None,
        q_pad_num_heads: int | None = None,
        **unknown: Any,
    ) -> None:
        refused = {
            "ALiBi": alibi_slopes,
            "attention other than a decoder's": attn_type != AttentionType.DECODER,
            "a shared KV cache": kv_sharing_target_layer_name,
            "a sparse indexer (DeepSeek V3.2)": indexer,
            **{f"the option {name}": value for name, value in unknown.items()},
        }
        for what, asked in refused.items():
            if asked:
                raise ValueError(f"latent attention (MLA) with {what} is not supported on HPU yet")
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = float(scale)
        self.num_kv_heads = num_kv_heads
        self.sliding_window = sliding_window
        self.kv_cache_dtype = kv_cache_dtype
        self.logits_soft_cap = logits_soft_cap or None
        self.kv_lora_rank = kv_lora_rank
        self.q_pad_num_heads = q_pad_num_heads
        # The step's own latents, handed from the cache update to the attention that follows it.
        self._latents: torch.Tensor | None = None

    def need(self, kv_cache: torch.Tensor, dtype: torch.dtype) -> Need:
        """What a layer with this cache asks of a step, for queries in ``dtype``."""
        return Need(
            layout=PageLayout.of(kv_cache.unsqueeze(1), parts=1),
            heads=self.q_pad_num_heads or self.num_heads,
            window=self.sliding_window,
            dtype=dtype,
            stores=True,
            from_cache=False,
        )

    def do_kv_cache_update(
        self,
        kv_c_normed: torch.Tensor,
        k_pe: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        kv_cache_dtype: str,
        k_scale: torch.Tensor,
    ) -> None:
        """Keep the step's latents: the attention that follows writes and reads in one region.

        Args:
            kv_c_normed: ``[tokens, kv_lora_rank]``.
            k_pe: ``[tokens, 1, rope]`` or ``[tokens, rope]``.
            kv_cache: ``[blocks, block_size, kv_lora_rank + rope]``; empty before it is bound.
            slot_mapping: int64 ``[tokens]`` or longer.
        """
        if kv_cache.numel() == 0:
            return
        tokens = kv_c_normed.shape[0]
        self._latents = torch.cat((kv_c_normed, k_pe.reshape(tokens, -1)), dim=-1).unsqueeze(1)

    def forward_mqa(
        self,
        q: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        kv_c_and_k_pe_cache: torch.Tensor,
        attn_metadata: HpuAttentionMetadata,
        layer: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend from absorbed queries.

        Args:
            q: ``[tokens, heads, kv_lora_rank + rope]``, or its two parts.
            kv_c_and_k_pe_cache: ``[blocks, block_size, kv_lora_rank + rope]``; the latents of
                :meth:`do_kv_cache_update` are written to it first.

        Returns:
            ``[tokens, heads, kv_lora_rank]`` and None (no log-sum-exp).
        """
        query = torch.cat(q, dim=-1) if isinstance(q, tuple) else q
        cache = kv_c_and_k_pe_cache.unsqueeze(1)
        latents, self._latents = self._latents, None
        layout = PageLayout.of(cache, parts=1)
        result = paged_attention(
            query,
            latents,
            latents,
            page_view(cache, layout),
            attn_metadata.plans(self.need(kv_c_and_k_pe_cache, query.dtype)),
            None,
            layout,
            self.scale,
            self.logits_soft_cap,
        )
        return result[..., : self.kv_lora_rank].to(query.dtype), None


class HpuMLAPrefillBackend(MLAPrefillBackend):
    """Says that no token takes vLLM's expanded prefill; the layer wants a class to be named."""

    supported_dtypes = HpuAttentionBackend.supported_dtypes

    @staticmethod
    def get_name() -> str:
        return "HPU_ABSORBED"

    def run_prefill_new_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """Raises RuntimeError: the metadata sends every token to the absorbed path."""
        raise RuntimeError("MLA on HPU has no expanded prefill; its metadata counts no prefill row")

    def run_prefill_context_chunk(self, *args: Any, **kwargs: Any) -> Any:
        """Raises RuntimeError: the metadata sends every token to the absorbed path."""
        raise RuntimeError("MLA on HPU has no expanded prefill; its metadata counts no prefill row")


class HpuMLABackend(HpuAttentionBackend):
    """Paged latent attention."""

    @staticmethod
    def get_name() -> str:
        return "HPU_MLA"

    @staticmethod
    def get_impl_cls() -> type[HpuMLAImpl]:  # type: ignore[override]
        return HpuMLAImpl

    @classmethod
    def is_mla(cls) -> bool:
        return True

    @classmethod
    def supports_sink(cls) -> bool:
        return False

    @classmethod
    def supports_attn_type(cls, attn_type: str) -> bool:
        return attn_type == AttentionType.DECODER
