"""The card's fused operators: thin functions over ``torch.ops.hpu`` and the bridge's kernels.

Schemas: HabanaAI/gaudi-pytorch-bridge, ``scripts/hpu_op.yaml`` and
``habana_eager/eager_custom_op_register.cpp``. The bridge must be loaded (``info.load_bridge``).
"""

import torch

__all__ = [
    "float32_product",
    "fused_sdpa",
    "mixture_of_experts",
    "mixture_of_experts_swiglu_oai",
    "rms_norm",
    "rotary",
]

# Modes of hpu::rotary_pos_embedding: halves rotate together (NeoX), or neighbours (GPT-J).
_BLOCKWISE = 0
_PAIRWISE = 1


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """``x / sqrt(mean(x²) + epsilon) · weight``.

    Args:
        x: ``[..., hidden]``.
        weight: ``[hidden]``, of the dtype of ``x``.
        epsilon: added to the mean of squares.
    """
    return torch.ops.hpu.rms_norm(x, weight, epsilon)[0]


def rotary(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor | None,
    neox: bool,
) -> torch.Tensor:
    """Rotate the last axis of ``x``.

    Args:
        x: ``[tokens, heads, rotary_dim]``.
        cos, sin: one value per element: ``[tokens, 1, rotary_dim]``, or tables
            ``[positions, rotary_dim]`` whose rows ``positions`` picks.
        positions: ``[tokens]`` or None.
        neox: whether the halves rotate together; otherwise neighbours do.
    """
    mode = _BLOCKWISE if neox else _PAIRWISE
    return torch.ops.hpu.rotary_pos_embedding(x, sin, cos, positions, 0, mode)


def float32_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``left @ right`` in float32, for readers that need more than the operands' 16 bits.

    The matrix engine sums in float32, but a product has the type of its operands
    (``hpu_ops/backend/bmm_gen.cpp``) and is rounded to it. Operands are therefore widened, which
    loses nothing: that works in every mode, where ``out=`` of another type cannot be traced.

    Args:
        left: ``[..., m, k]``.
        right: ``[..., k, n]``.
    """
    return torch.matmul(left.to(torch.float32), right.to(torch.float32))


def mixture_of_experts(
    x: torch.Tensor,
    expert_ids: torch.Tensor,
    router_weights: torch.Tensor,
    w13: list[torch.Tensor],
    w2: list[torch.Tensor],
    activation: str,
    first_expert: int,
    last_expert: int,
) -> torch.Tensor:
    """Gated experts ``w2(activation(gate) · up)``, summed with the router's weights.

    Args:
        x: ``[tokens, hidden]``.
        expert_ids: int64 ``[tokens, k]``; ids outside the range add nothing.
        router_weights: ``[tokens, k]``, in the dtype of ``x``.
        w13: per expert ``[2 · ffn, hidden]``, gate first.
        w2: per expert ``[hidden, ffn]``.
        activation: ``silu``, ``gelu`` or ``relu``.
        first_expert, last_expert: inclusive range of ids that the lists stand for.
    """
    return torch.ops.hpu.mixture_of_experts.fused_weights(
        x, expert_ids, router_weights, w13, w2, True, activation, first_expert, last_expert
    )


def mixture_of_experts_swiglu_oai(
    x: torch.Tensor,
    expert_ids: torch.Tensor,
    router_weights: torch.Tensor,
    w13: list[torch.Tensor],
    w2: list[torch.Tensor],
    w13_bias: list[torch.Tensor],
    w2_bias: list[torch.Tensor],
    first_expert: int,
    last_expert: int,
    alpha: float,
    limit: float,
) -> torch.Tensor:
    """GPT-OSS's experts: interleaved gate and up, ``(up + 1) · gate · sigmoid(alpha · gate)``.

    Arguments as in :func:`mixture_of_experts`; biases per expert ``[2 · ffn]`` and ``[hidden]``;
    the gate is clamped to at most ``limit``, up to ``±limit``.
    """
    return torch.ops.hpu.mixture_of_experts.bias_fused_weights(
        x,
        expert_ids,
        router_weights,
        w13,
        w2,
        w13_bias,
        w2_bias,
        permuted_weights=True,
        experts_min=first_expert,
        experts_max=last_expert,
        alpha=alpha,
        limit=limit,
    )


def fused_sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention by the recompute kernel, which never holds the matrix of scores.

    Args:
        query: ``[1, heads, queries, width]``.
        key, value: ``[1, kv_heads, keys, width]``; the kernel shares heads itself.
        mask: additive ``[queries, keys]`` in the dtype of ``query``.
        scale: factor of the scores.
        sinks: one logit per query head ``[heads]`` which joins each query's softmax once.
    """
    from habana_frameworks.torch.hpex.kernels import FusedSDPA

    # Scores in float32 are an option of the kernel, for bfloat16 only (release 1.20; 1.19 has its
    # default for it). Without it large scores are rounded before the softmax.
    softmax = "fp32" if query.dtype == torch.bfloat16 else "none"
    # Only the bridge's newer kernel knows windows and sinks; do not name them where none is meant.
    extra = () if sinks is None else (False, False, (-1, -1), sinks)
    return FusedSDPA.apply(
        query, key, value, mask[None, None], 0.0, False, scale, softmax, True, None, "right", *extra
    )
