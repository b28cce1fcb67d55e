"""Attention as a part of the layer's region.

A compiled layer is reused by all layers of its kind only if nothing in it names the layer, and
vLLM's attention layer finds its metadata by name. So each layer has a *slot*, which it shares with
the layers that ask the same of a step; a step's plans are put there before the forward, and their
tensors become inputs of the region, as the layer's cache and parameters are.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from vllm.model_executor.layers.attention import Attention

from vllm_hpu.attention.impl import HpuAttentionImpl
from vllm_hpu.attention.opaque import make_opaque
from vllm_hpu.attention.plans import Need, Plans

__all__ = ["Slot", "make_traceable"]


class Slot:
    """Where layers of one kind find what they need of a step; ``plans`` is None outside of one."""

    def __init__(self, need: Need) -> None:
        self.dtype = need.dtype
        self.plans: Plans | None = None


def make_traceable(layer: Any) -> None:
    """Let ``layer`` be traced with what is around it.

    Kinds of attention for which that is not possible become an operator of their own.
    """
    make_opaque(layer)
    impl = getattr(layer, "impl", None)
    if type(layer) is not Attention or type(impl) is not HpuAttentionImpl:
        return
    if impl.has_cache and layer.query_quant is None:
        traced: Any = layer
        traced.hpu_slot, traced.hpu_opaque = None, layer.forward
        traced.forward = MethodType(_forward, layer)


def _forward(
    self: Any,
    query: torch.Tensor,
    key: torch.Tensor | None,
    value: torch.Tensor | None,
    output_shape: torch.Size | None = None,
    **options: Any,
) -> torch.Tensor:
    slot = self.hpu_slot
    if slot is None or slot.plans is None or slot.dtype != query.dtype or options:
        opaque: torch.Tensor = self.hpu_opaque(query, key, value, output_shape, **options)
        return opaque
    result = self.impl.attend_traced(
        query.view(-1, self.num_heads, self.head_size),
        None if key is None else key.view(-1, self.num_kv_heads, self.head_size),
        None if value is None else value.view(-1, self.num_kv_heads, self.head_size_v),
        self.kv_cache,
        slot.plans,
    )
    return result.reshape(-1, self.num_heads * self.head_size_v)
