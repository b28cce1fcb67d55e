"""``hpu::mixture_of_experts``: the overloads with weights in the activations' dtype.

Schemas: scripts/hpu_op.yaml of HabanaAI/gaudi-pytorch-bridge (newer public commit). The overloads
that measure are in moe_measure.py, those with quantised weights in moe_quantized.py.
"""

from collections.abc import Mapping, Sequence

import torch

from .library import operator
from .moe_kernel import ACTIVATIONS, gated_experts, swiglu_oai_experts

__all__ = [
    "check_experts",
    "mixture_of_experts",
    "mixture_of_experts_bias_fused",
    "mixture_of_experts_fused",
]


def check_experts(
    hidden: torch.Tensor,
    routing: torch.Tensor,
    router_weights: torch.Tensor,
    lists: Mapping[str, Sequence],
    experts_min: int,
    experts_max: int,
    activation: str = "silu",
) -> None:
    """Refuse what the card's kernel would not take; only shapes are looked at, no values."""
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"mixture_of_experts: activation '{activation}' is not one of {tuple(ACTIVATIONS)}"
        )
    if hidden.dim() != 2 or routing.shape != router_weights.shape or routing.dim() != 2:
        raise ValueError(
            "mixture_of_experts: hidden_states must be [tokens, hidden] and expert_routing_table "
            f"and router_weights both [tokens, k]; got {tuple(hidden.shape)}, "
            f"{tuple(routing.shape)}, {tuple(router_weights.shape)}"
        )
    count = experts_max - experts_min + 1
    for name, tensors in lists.items():
        if len(tensors) != count:
            raise ValueError(
                f"mixture_of_experts: {len(tensors)} tensors in {name}, but experts "
                f"{experts_min}..{experts_max} (inclusive) are {count}"
            )


def _fake(hidden_states, *args, **kwargs):
    return torch.empty_like(hidden_states, memory_format=torch.contiguous_format)


@operator(
    "mixture_of_experts(Tensor hidden_states, Tensor expert_routing_table, Tensor router_weights,"
    " Tensor[] w1, Tensor[] w2, Tensor[] w3, bool permuted_weights, str activation,"
    " int experts_min, int experts_max, *, bool? recomp=True, int chunk_size=0,"
    " int total_experts=0) -> Tensor",
    _fake,
)
def mixture_of_experts(
    hidden_states: torch.Tensor,
    expert_routing_table: torch.Tensor,
    router_weights: torch.Tensor,
    w1: list[torch.Tensor],
    w2: list[torch.Tensor],
    w3: list[torch.Tensor],
    permuted_weights: bool,
    activation: str,
    experts_min: int,
    experts_max: int,
    *,
    recomp: bool | None = True,
    chunk_size: int = 0,
    total_experts: int = 0,
) -> torch.Tensor:
    """Gated experts with separate gate and up projections.

    Args:
        hidden_states: ``[tokens, hidden]``.
        expert_routing_table: int32 or int64 ``[tokens, k]``, global expert ids.
        router_weights: ``[tokens, k]``.
        w1, w2, w3: gate, up and down weights of each local expert: ``[hidden, ffn]``,
            ``[hidden, ffn]``, ``[ffn, hidden]``, or transposed with ``permuted_weights``.
        activation: ``silu``, ``gelu`` or ``relu``, applied to the gate.
        experts_min, experts_max: inclusive range of global ids that this rank holds.
        recomp: whether training recomputes the forward; no meaning in inference.
        chunk_size, total_experts: hints for the card's scheduler; the result is the same.

    Returns:
        ``[tokens, hidden]`` in the dtype of ``hidden_states``; other ranks' experts add nothing.
    """
    check_experts(
        hidden_states,
        expert_routing_table,
        router_weights,
        {"w1": w1, "w2": w2, "w3": w3},
        experts_min,
        experts_max,
        activation,
    )
    return gated_experts(
        hidden_states,
        expert_routing_table,
        router_weights,
        w1,
        w2,
        w3,
        permuted_weights,
        activation,
        experts_min,
        experts_max,
    )


@operator(
    "mixture_of_experts.fused_weights(Tensor hidden_states, Tensor expert_routing_table,"
    " Tensor router_weights, Tensor[] w12, Tensor[] w3, bool permuted_weights, str activation,"
    " int experts_min, int experts_max, *, bool? recomp=True, int chunk_size=0,"
    " int total_experts=0) -> Tensor",
    _fake,
)
def mixture_of_experts_fused(
    hidden_states: torch.Tensor,
    expert_routing_table: torch.Tensor,
    router_weights: torch.Tensor,
    w12: list[torch.Tensor],
    w3: list[torch.Tensor],
    permuted_weights: bool,
    activation: str,
    experts_min: int,
    experts_max: int,
    *,
    recomp: bool | None = True,
    chunk_size: int = 0,
    total_experts: int = 0,
) -> torch.Tensor:
    """As :func:`mixture_of_experts`, gate and up stacked in ``w12`` (gate first).

    ``w12`` is ``[hidden, 2*ffn]`` per expert, or ``[2*ffn, hidden]`` with ``permuted_weights``.
    """
    check_experts(
        hidden_states,
        expert_routing_table,
        router_weights,
        {"w12": w12, "w3": w3},
        experts_min,
        experts_max,
        activation,
    )
    return gated_experts(
        hidden_states,
        expert_routing_table,
        router_weights,
        w12,
        [],
        w3,
        permuted_weights,
        activation,
        experts_min,
        experts_max,
    )


@operator(
    "mixture_of_experts.bias_fused_weights(Tensor hidden_states, Tensor expert_routing_table,"
    " Tensor router_weights, Tensor[] w12, Tensor[] w3, Tensor[] w12_bias, Tensor[] w3_bias, *,"
    " bool permuted_weights, int experts_min, int experts_max, int chunk_size=0,"
    " int total_experts=0, float alpha=1.702, float limit=7.0) -> Tensor",
    _fake,
)
def mixture_of_experts_bias_fused(
    hidden_states: torch.Tensor,
    expert_routing_table: torch.Tensor,
    router_weights: torch.Tensor,
    w12: list[torch.Tensor],
    w3: list[torch.Tensor],
    w12_bias: list[torch.Tensor],
    w3_bias: list[torch.Tensor],
    *,
    permuted_weights: bool,
    experts_min: int,
    experts_max: int,
    chunk_size: int = 0,
    total_experts: int = 0,
    alpha: float = 1.702,
    limit: float = 7.0,
) -> torch.Tensor:
    """GPT-OSS experts with biases on both projections.

    ``w12`` and ``w12_bias`` interleave gate (even) and up (odd) columns. The gate is clamped to
    at most ``limit``, up to ``-limit..limit``; the inner value is
    ``(up + 1) * gate * sigmoid(alpha * gate)``.
    """
    check_experts(
        hidden_states,
        expert_routing_table,
        router_weights,
        {"w12": w12, "w3": w3, "w12_bias": w12_bias, "w3_bias": w3_bias},
        experts_min,
        experts_max,
    )
    return swiglu_oai_experts(
        hidden_states,
        expert_routing_table,
        router_weights,
        w12,
        w3,
        w12_bias,
        w3_bias,
        permuted_weights,
        experts_min,
        experts_max,
        alpha,
        limit,
    )
