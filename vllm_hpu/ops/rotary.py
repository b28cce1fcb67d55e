"""Rotary position embedding on the card's kernel.

Scaled variants (Llama 3, YaRN, NTK, linear, Gemma 4) differ from the plain one only in how their
table of angles is computed, so one forward serves them all. Variants that rotate differently
(multi-modal sections, Fourier, dual chunk) are not replaced and keep vLLM's torch code.
"""

import torch
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding, RotaryEmbeddingBase
from vllm.model_executor.layers.rotary_embedding.deepseek_scaling_rope import (
    DeepseekScalingRotaryEmbedding,
)
from vllm.model_executor.layers.rotary_embedding.dynamic_ntk_alpha_rope import (
    DynamicNTKAlphaRotaryEmbedding,
)
from vllm.model_executor.layers.rotary_embedding.dynamic_ntk_scaling_rope import (
    DynamicNTKScalingRotaryEmbedding,
)
from vllm.model_executor.layers.rotary_embedding.gemma4_rope import Gemma4RotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.linear_scaling_rope import (
    LinearScalingRotaryEmbedding,
)
from vllm.model_executor.layers.rotary_embedding.llama3_rope import Llama3RotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.ntk_scaling_rope import NTKScalingRotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.yarn_scaling_rope import YaRNScalingRotaryEmbedding

from vllm_hpu.device import ops as device_ops
from vllm_hpu.ops.derived import Derives

__all__ = ["ROTARY_CLASSES", "register", "widen"]

ROTARY_CLASSES: tuple[type[RotaryEmbeddingBase], ...] = (
    RotaryEmbedding,
    DynamicNTKAlphaRotaryEmbedding,
    DynamicNTKScalingRotaryEmbedding,
    Gemma4RotaryEmbedding,
    LinearScalingRotaryEmbedding,
    Llama3RotaryEmbedding,
    NTKScalingRotaryEmbedding,
    YaRNScalingRotaryEmbedding,
    DeepseekScalingRotaryEmbedding,
)


def widen(cos_sin_cache: torch.Tensor, is_neox_style: bool) -> torch.Tensor:
    """Give every element of the head its own angle, as the card's kernel wants it.

    Args:
        cos_sin_cache: ``[positions, rotary_dim]``: the cosines of ``rotary_dim / 2`` angles, then
            their sines (vLLM's layout).
        is_neox_style: True: element ``i`` rotates with ``i + rotary_dim / 2``; False (GPT-J): with
            its neighbour.

    Returns:
        ``[positions, 2 · rotary_dim]``, cosines then sines, in the dtype of the input.
    """
    cos, sin = cos_sin_cache.chunk(2, dim=-1)
    if is_neox_style:
        return torch.cat((cos, cos, sin, sin), dim=-1)
    return torch.cat((cos.repeat_interleave(2, -1), sin.repeat_interleave(2, -1)), dim=-1)


def _rotate(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, head_size: int, is_neox_style: bool
) -> torch.Tensor:
    """Rotate the first ``cos.shape[-1]`` elements of every head of ``x``, keeping its shape.

    Args:
        x: ``[tokens, heads · head_size]`` or ``[tokens, heads, head_size]``.
        cos, sin: ``[tokens, 1, rotary_dim]``, in the dtype of ``x``.
    """
    heads = x.reshape(cos.shape[0], -1, head_size)
    rotary_dim = cos.shape[-1]
    if rotary_dim == head_size:
        return device_ops.rotary(heads, cos, sin, None, is_neox_style).reshape(x.shape)
    turned = device_ops.rotary(heads[..., :rotary_dim], cos, sin, None, is_neox_style)
    return torch.cat((turned, heads[..., rotary_dim:]), dim=-1).reshape(x.shape)


class _HpuRotaryMixin(Derives):
    """Forward over the card's kernel; the host class computes the table of angles."""

    DERIVED_FROM = ("is_neox_style",)

    def derive(self) -> None:
        """Widen the table of angles."""
        # Both halves are stored once more (2 · positions · rotary_dim elements): the alternative is
        # two extra copies per layer and step.
        self.register_buffer(  # type: ignore[attr-defined]
            "cos_sin_per_element",
            widen(self.cos_sin_cache, self.is_neox_style),  # type: ignore[attr-defined]
            persistent=False,
        )

    def forward_oot(
        self,
        positions: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor | None = None,
        offsets: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Rotate ``query`` and ``key`` ``[tokens, heads · head_size]`` by ``positions`` [tokens].

        ``key`` may be None (layers that share another layer's KV cache). ``offsets`` [tokens] are
        added to the positions (DeepSeek's variant has them).
        """
        positions = positions.flatten()
        if offsets is not None:
            positions = positions + offsets.flatten()
        self.keep_derived()
        table = self.cos_sin_per_element  # type: ignore[attr-defined]
        rows = table.index_select(0, positions).to(query.dtype).unsqueeze(1)
        cos, sin = rows.chunk(2, dim=-1)
        head_size: int = self.head_size  # type: ignore[attr-defined]
        neox: bool = self.is_neox_style  # type: ignore[attr-defined]
        query = _rotate(query, cos, sin, head_size, neox)
        if key is not None:
            key = _rotate(key, cos, sin, head_size, neox)
        return query, key


def register() -> None:
    """Put our forward behind every class of ``ROTARY_CLASSES``; harmless when repeated."""
    for base in ROTARY_CLASSES:
        if base.__name__ not in op_registry_oot:
            base.register_oot(type(f"Hpu{base.__name__}", (_HpuRotaryMixin, base), {}))
