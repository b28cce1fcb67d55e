"""The experts of one MoE layer as the card's kernel wants them, and the calls over them.

``torch.ops.hpu.mixture_of_experts`` takes lists with one weight per expert, expert ids and an
inclusive range of ids that the lists stand for.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from vllm_hpu.device import ops as device_ops

__all__ = ["ExpertWeights", "SwigluOai", "run_on_card", "run_plain"]


@dataclass(frozen=True)
class SwigluOai:
    """GPT-OSS's gate: ``(up + 1) · gate · sigmoid(alpha · gate)`` with clamped inputs."""

    alpha: float = 1.702
    limit: float = 7.0


@dataclass(frozen=True)
class ExpertWeights:
    """Weights of the experts on this rank, one tensor (a view) per expert.

    Attributes:
        w13: gate and up projection, ``[2 · ffn, hidden]`` each.
        w2: down projection, ``[hidden, ffn]`` each.
        w13_bias, w2_bias: ``[2 · ffn]`` and ``[hidden]`` each, or None.
    """

    w13: tuple[torch.Tensor, ...]
    w2: tuple[torch.Tensor, ...]
    w13_bias: tuple[torch.Tensor, ...] | None = None
    w2_bias: tuple[torch.Tensor, ...] | None = None


def run_on_card(
    x: torch.Tensor,
    weights: ExpertWeights,
    expert_ids: torch.Tensor,
    router_weights: torch.Tensor,
    first_expert: int,
    activation: str | SwigluOai,
) -> torch.Tensor:
    """Run the experts on the card's kernel, all in one call.

    Args:
        x: ``[tokens, hidden]``.
        weights: experts ``first_expert ... first_expert + len(weights.w13) - 1``.
        expert_ids: int64 ``[tokens, k]``, not negative; ids outside the range add nothing.
        router_weights: ``[tokens, k]`` in the dtype of ``x``.
        first_expert: the id of the first expert of ``weights``.
        activation: ``silu``, ``gelu`` or ``relu`` of the gate, or :class:`SwigluOai` (with
            both biases).

    Returns:
        ``[tokens, hidden]`` in the dtype of ``x``.
    """
    w13, w2 = list(weights.w13), list(weights.w2)
    last_expert = first_expert + len(w13) - 1
    if isinstance(activation, str):
        return device_ops.mixture_of_experts(
            x, expert_ids, router_weights, w13, w2, activation, first_expert, last_expert
        )
    if weights.w13_bias is None or weights.w2_bias is None:
        raise ValueError("The card's kernel for GPT-OSS's experts needs biases on both projections")
    return device_ops.mixture_of_experts_swiglu_oai(
        x,
        expert_ids,
        router_weights,
        w13,
        w2,
        list(weights.w13_bias),
        list(weights.w2_bias),
        first_expert,
        last_expert,
        activation.alpha,
        activation.limit,
    )


def run_plain(
    x: torch.Tensor,
    weights: ExpertWeights,
    expert_ids: torch.Tensor,
    router_weights: torch.Tensor,
    first_expert: int,
    activation: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Run the experts in plain matrix products: for activations that the card's kernel lacks.

    Every expert sees every token and is weighted by zero where it was not chosen, so the shapes
    are static; the price is experts / k times the arithmetic. Arguments as in
    :func:`run_on_card`; ``activation`` maps ``[tokens, 2 · ffn]`` to ``[tokens, ffn]``.
    """
    total = torch.zeros_like(x)
    for index in range(len(weights.w13)):
        chosen = expert_ids == first_expert + index
        share = torch.where(chosen, router_weights, 0).sum(dim=-1, keepdim=True)
        inner = F.linear(x, weights.w13[index], weights.w13_bias and weights.w13_bias[index])
        outer = F.linear(
            activation(inner), weights.w2[index], weights.w2_bias and weights.w2_bias[index]
        )
        total = total + outer * share
    return total
