"""Attention of one layer: write this step's keys and values, then attend."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from vllm.v1.attention.backend import AttentionImpl, AttentionType

from vllm_hpu.attention.cache import PageLayout, finite, page_view, write_kv
from vllm_hpu.attention.derive import PrefillPlan
from vllm_hpu.attention.metadata import HpuAttentionMetadata
from vllm_hpu.attention.paged import decode_attention
from vllm_hpu.attention.plans import Need, Plans
from vllm_hpu.attention.prefill import prefill_attention
from vllm_hpu.graphs.region import region

__all__ = ["HpuAttentionImpl", "paged_attention"]


class _Operands(NamedTuple):
    """What a layer attends with, all finite.

    query       ``[tokens, heads, width]``
    key, value  ``[tokens, kv_heads, width]``, parts of ``written``; None when there are none
    written     what goes to the cache: keys, then values unless they are the same
    whole       bool ``[tokens, heads, width]``, whether the query was finite
    """

    query: torch.Tensor
    key: torch.Tensor | None
    value: torch.Tensor | None
    written: torch.Tensor | None
    whole: torch.Tensor

    @classmethod
    def of(
        cls, query: torch.Tensor, key: torch.Tensor | None, value: torch.Tensor | None
    ) -> "_Operands":
        whole = torch.isfinite(query)
        clean = torch.where(whole, query, 0.0)
        if key is None or value is None:
            return cls(clean, None, None, None, whole)
        tokens = key.shape[0]
        written = finite(key if value is key else torch.cat((key, value)))
        return cls(clean, written[:tokens], written[-tokens:], written, whole)


def encode_tokens(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    plan: PrefillPlan,
    sinks: torch.Tensor | None,
    scale: float,
    soft_cap: float | None,
) -> torch.Tensor:
    """Attention among each row's own tokens, without a cache; arguments as in :func:`attend`."""
    own = _Operands.of(query, key, value)
    result = prefill_attention(
        own.query, own.key, own.value, None, plan, sinks, None, scale, soft_cap, None
    )
    return torch.where(own.whole, result, float("nan"))


encode = region(encode_tokens)
"""The same as a region."""


def attend(
    query: torch.Tensor,
    key: torch.Tensor | None,
    value: torch.Tensor | None,
    pages: torch.Tensor,
    plans: Plans,
    sinks: torch.Tensor | None,
    layout: PageLayout,
    scale: float,
    soft_cap: float | None,
) -> torch.Tensor:
    """Write this step's keys and values to the cache and attend from its tokens.

    Args:
        query: ``[tokens, heads, width]``.
        key, value: ``[tokens, kv_heads, width]``; None when only the cache has them. One tensor
            twice for latents, of which the cache has one part.
        pages: the cache as ``[pages, block_size * width]``.

    Returns:
        ``[tokens, heads, width]`` in the dtype of ``query``. A token whose query is NaN or infinite
        has NaN there, which no other token sees; other padding tokens hold anything finite.
    """
    own = _Operands.of(query, key, value)
    result = _attend(own, pages, plans, sinks, layout, scale, soft_cap)
    return torch.where(own.whole, result, float("nan"))


def _attend(
    own: _Operands,
    pages: torch.Tensor,
    plans: Plans,
    sinks: torch.Tensor | None,
    layout: PageLayout,
    scale: float,
    soft_cap: float | None,
) -> torch.Tensor:
    """:func:`attend` for finite operands."""
    rows, decode, prefill, reach = plans
    if rows is not None and own.written is not None:
        write_kv(pages, own.written, rows)
    decoded = filled = None
    if decode is not None:
        decoded = decode_attention(own.query, pages, decode, sinks, layout, scale, soft_cap)
    if prefill is not None:
        filled = prefill_attention(
            own.query, own.key, own.value, pages, prefill, sinks, layout, scale, soft_cap, reach
        )
    if filled is None or decode is None or decode.is_decode is None:
        whole = decoded if filled is None else filled
        if whole is None:
            raise ValueError("a step without decode rows and without prefill rows has no attention")
        return whole
    return torch.where(decode.is_decode, decoded, filled)


paged_attention = region(attend)
"""A layer's attention as a region of its own, for layers that are not traced as a whole."""


class HpuAttentionImpl(AttentionImpl[HpuAttentionMetadata]):
    """Decoder and encoder-only attention with grouped heads, windows, sinks and capped scores."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = AttentionType.DECODER,
        kv_sharing_target_layer_name: str | None = None,
        sinks: torch.Tensor | None = None,
        **unknown: Any,
    ) -> None:
        if alibi_slopes is not None:
            raise ValueError(
                "ALiBi position biases are not supported on HPU yet; serve a model with rotary or "
                "learned positions"
            )
        if attn_type not in (AttentionType.DECODER, AttentionType.ENCODER_ONLY):
            raise ValueError(
                f"attention of type '{attn_type}' (cross attention) is not supported on HPU yet; "
                "serve a decoder-only or encoder-only model"
            )
        if unknown:
            raise ValueError(
                f"attention on HPU does not know the option(s) {', '.join(sorted(unknown))} which "
                "this model's layers ask for"
            )
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = float(scale)
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.sliding_window = sliding_window
        self.kv_cache_dtype = kv_cache_dtype
        # Models that cap nothing pass None or 0.
        self.logits_soft_cap = logits_soft_cap or None
        self.attn_type = attn_type
        self.kv_sharing_target_layer_name = kv_sharing_target_layer_name
        if sinks is not None and sinks.numel() != num_heads:
            raise ValueError(f"{sinks.numel()} attention sinks for {num_heads} query heads")
        self.sinks = sinks

    def forward(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: HpuAttentionMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend and write the result into ``output``.

        Args:
            query: ``[tokens, heads, head_size]``.
            key, value: ``[tokens, kv_heads, head_size]``.
            kv_cache: ``[blocks, kv_heads, block_size, 2 * head_size]``; empty for encoder layers.
            attn_metadata: None in a profile run, which has no cache: the result is then zero.
            output: ``[tokens, heads, head_size]``.

        Raises:
            ValueError: quantised output was asked for, or the number of tokens is not the plan's.
        """
        if output_scale is not None or output_block_scale is not None:
            raise ValueError("attention on HPU writes no quantised output; disable fuse_attn_quant")
        if attn_metadata is None:
            return output.zero_()
        if query.shape[0] != attn_metadata.shape.tokens:
            raise ValueError(
                f"attention got {query.shape[0]} tokens, its metadata was built for "
                f"{attn_metadata.shape.tokens}"
            )
        plans = attn_metadata.plans(self.need(kv_cache, query.dtype))
        if self.attn_type == AttentionType.ENCODER_ONLY:
            return output.copy_(self._encode(query, key, value, plans))
        return output.copy_(self._attend(paged_attention, query, key, value, kv_cache, plans))

    @property
    def has_cache(self) -> bool:
        """Whether keys and values stand in a cache."""
        return self.attn_type == AttentionType.DECODER

    def need(self, kv_cache: torch.Tensor, dtype: torch.dtype) -> Need:
        """What a layer with this cache asks of a step, for queries in ``dtype``."""
        shared = self.kv_sharing_target_layer_name is not None
        return Need(
            layout=PageLayout.of(kv_cache, parts=2) if self.has_cache else None,
            heads=self.num_heads,
            window=self.sliding_window,
            dtype=dtype,
            stores=self.has_cache and not shared,
            from_cache=shared,
        )

    def attend_traced(
        self,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        kv_cache: torch.Tensor,
        plans: Plans,
    ) -> torch.Tensor:
        """:meth:`forward` as a function of tensors alone, to be traced with the layer around it.

        Args:
            query: ``[tokens, heads, head_size]``.
            key, value: ``[tokens, kv_heads, head_size]``; any for layers that share a cache.

        Returns:
            ``[tokens, heads, head_size]`` in the dtype of ``query``.
        """
        return self._attend(attend, query, key, value, kv_cache, plans).to(query.dtype)

    def _attend(
        self,
        function: Callable[..., torch.Tensor],
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        kv_cache: torch.Tensor,
        plans: Plans,
    ) -> torch.Tensor:
        layout = PageLayout.of(kv_cache, parts=2)
        # A layer that shares another's cache may not look at its own keys and values.
        shared = self.kv_sharing_target_layer_name is not None
        return function(
            query,
            None if shared else key,
            None if shared else value,
            page_view(kv_cache, layout),
            plans,
            self.sinks,
            layout,
            self.scale,
            self.logits_soft_cap,
        )

    def _encode(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plans: Plans
    ) -> torch.Tensor:
        """Attention among each row's own tokens, without a cache."""
        return encode(
            query, key, value, plans.prefill, self.sinks, self.scale, self.logits_soft_cap
        )
