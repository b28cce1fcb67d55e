"""``apply_rotary_pos_emb``, its modes, and the same with a gradient (``...HelperV1`` to ``V3``).

Signature: python_packages/habana_frameworks/torch/hpex/kernels of HabanaAI/gaudi-pytorch-bridge.
"""

import enum

import torch

__all__ = [
    "RotaryPosEmbeddingHelperV1",
    "RotaryPosEmbeddingHelperV2",
    "RotaryPosEmbeddingHelperV3",
    "RotaryPosEmbeddingMode",
    "apply_rotary_pos_emb",
]


class RotaryPosEmbeddingMode(enum.Enum):
    """Which elements of the last dimension rotate together."""

    BLOCKWISE = 0
    """Element ``i`` with ``i + dim/2`` (GPT-NeoX, Llama)."""
    PAIRWISE = 1
    """Element ``2i`` with ``2i + 1`` (GPT-J, ChatGLM)."""


def apply_rotary_pos_emb(
    p: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    offset: int = 0,
    mode: RotaryPosEmbeddingMode = RotaryPosEmbeddingMode.BLOCKWISE,
) -> torch.Tensor:
    """Rotate ``p`` by the angles of ``cos`` and ``sin``.

    Args:
        p: ``[..., dim]``.
        cos, sin: broadcastable to ``p``, or tables ``[positions, dim]`` for ``position_ids``; in
            pairwise mode ``[..., dim/2]`` is accepted too and every angle is doubled. A ``cos``
            alone is the cache of :class:`RotaryPosEmbeddingHelperV3`.
        position_ids: int ``[batch, seq]`` or None.
        offset: see ``torch.ops.hpu.rotary_pos_embedding``.
        mode: blockwise or pairwise.

    Returns:
        a tensor of ``p``'s shape; float32 if any input is float32, else ``p``'s dtype.
    """
    if sin is None:
        return RotaryPosEmbeddingHelperV3.apply(p, cos)
    dtype = torch.float32 if torch.float32 in (p.dtype, cos.dtype, sin.dtype) else p.dtype
    if mode is RotaryPosEmbeddingMode.PAIRWISE and cos.shape[-1] * 2 == p.shape[-1]:
        cos, sin = cos.repeat_interleave(2, dim=-1), sin.repeat_interleave(2, dim=-1)
        if cos.dim() == p.dim() - 1:
            # [batch, seq, dim] against [batch, seq, heads, dim].
            cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
    return torch.ops.hpu.rotary_pos_embedding(
        p.to(dtype), sin.to(dtype), cos.to(dtype), position_ids, offset, mode.value
    )


def _gradient(grad, cos, sin, position_ids, offset, mode):
    return torch.ops.hpu.rotary_pos_embedding_backward(
        grad, sin, cos, position_ids, offset, mode.value
    )


class RotaryPosEmbeddingHelperV1(torch.autograd.Function):
    """``apply(p, cos, sin, offset)``: blockwise, without positions (GPT-NeoX until 4.27.4)."""

    @staticmethod
    def forward(ctx, p, cos, sin, offset):
        """See :func:`apply_rotary_pos_emb`."""
        ctx.save_for_backward(cos, sin)
        ctx.offset = offset
        return apply_rotary_pos_emb(p, cos, sin, None, offset)

    @staticmethod
    def backward(ctx, grad):
        """Gradient of ``p``."""
        mode = RotaryPosEmbeddingMode.BLOCKWISE
        cos, sin = ctx.saved_tensors
        return _gradient(grad, cos, sin, None, ctx.offset, mode), None, None, None


class RotaryPosEmbeddingHelperV2(torch.autograd.Function):
    """``apply(p, cos, sin, position_ids)``: blockwise, with positions (Llama, StableLM)."""

    @staticmethod
    def forward(ctx, p, cos, sin, position_ids):
        """See :func:`apply_rotary_pos_emb`."""
        ctx.save_for_backward(cos, sin, position_ids)
        return apply_rotary_pos_emb(p, cos, sin, position_ids)

    @staticmethod
    def backward(ctx, grad):
        """Gradient of ``p``."""
        mode = RotaryPosEmbeddingMode.BLOCKWISE
        cos, sin, position_ids = ctx.saved_tensors
        return _gradient(grad, cos, sin, position_ids, 0, mode), None, None, None


class RotaryPosEmbeddingHelperV3(torch.autograd.Function):
    """``apply(p, rope_cache)``: pairwise on the first part of the last dimension (ChatGLM).

    ``p`` is ``[seq, batch, heads, dim]``; ``rope_cache`` is ``[positions, batch or 1, pairs, 2]``
    with cosine and sine of every pair; elements from ``2 * pairs`` on pass unchanged.
    """

    @staticmethod
    def _tables(p, rope_cache):
        pairs = rope_cache.shape[-2]
        rows = rope_cache[: p.shape[0]].reshape(p.shape[0], -1, 1, pairs, 2)
        cos, sin = (rows[..., i].repeat_interleave(2, dim=-1).to(p.dtype) for i in (0, 1))
        return cos, sin, 2 * pairs

    @staticmethod
    def forward(ctx, p, rope_cache):
        """Rotate the first part of ``p``."""
        ctx.save_for_backward(rope_cache)
        cos, sin, turned = RotaryPosEmbeddingHelperV3._tables(p, rope_cache)
        mode = RotaryPosEmbeddingMode.PAIRWISE.value
        first = torch.ops.hpu.rotary_pos_embedding(
            p[..., :turned].contiguous(), sin, cos, None, 0, mode
        )
        return torch.cat((first, p[..., turned:]), dim=-1)

    @staticmethod
    def backward(ctx, grad):
        """Gradient of ``p``."""
        cos, sin, turned = RotaryPosEmbeddingHelperV3._tables(grad, *ctx.saved_tensors)
        first = _gradient(grad[..., :turned], cos, sin, None, 0, RotaryPosEmbeddingMode.PAIRWISE)
        return torch.cat((first, grad[..., turned:]), dim=-1), None
