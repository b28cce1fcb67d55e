"""``apply_rotary_pos_emb`` and its modes.

Signature: python_packages/habana_frameworks/torch/hpex/kernels of HabanaAI/gaudi-pytorch-bridge.
"""

import enum

import torch

__all__ = ["RotaryPosEmbeddingMode", "apply_rotary_pos_emb"]


class RotaryPosEmbeddingMode(enum.Enum):
    """Which elements of the last dimension rotate together."""

    BLOCKWISE = 0
    """Element ``i`` with ``i + dim/2`` (GPT-NeoX, Llama)."""
    PAIRWISE = 1
    """Element ``2i`` with ``2i + 1`` (GPT-J, ChatGLM)."""


def apply_rotary_pos_emb(
    p: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    position_ids: torch.Tensor | None = None,
    offset: int = 0,
    mode: RotaryPosEmbeddingMode = RotaryPosEmbeddingMode.BLOCKWISE,
) -> torch.Tensor:
    """Rotate ``p`` by the angles of ``cos`` and ``sin``.

    Args:
        p: ``[..., dim]``.
        cos, sin: broadcastable to ``p``, or tables ``[positions, dim]`` for ``position_ids``; in
            pairwise mode ``[..., dim/2]`` is accepted too and every angle is doubled.
        position_ids: int ``[batch, seq]`` or None.
        offset: see ``torch.ops.hpu.rotary_pos_embedding``.
        mode: blockwise or pairwise.

    Returns:
        a tensor of ``p``'s shape; float32 if any input is float32, else ``p``'s dtype.
    """
    dtype = torch.float32 if torch.float32 in (p.dtype, cos.dtype, sin.dtype) else p.dtype
    if mode is RotaryPosEmbeddingMode.PAIRWISE and cos.shape[-1] * 2 == p.shape[-1]:
        cos, sin = cos.repeat_interleave(2, dim=-1), sin.repeat_interleave(2, dim=-1)
        if cos.dim() == p.dim() - 1:
            # [batch, seq, dim] against [batch, seq, heads, dim].
            cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
    return torch.ops.hpu.rotary_pos_embedding(
        p.to(dtype), sin.to(dtype), cos.to(dtype), position_ids, offset, mode.value
    )
