"""Choosing the experts of each token, where vLLM would call compiled CUDA code.

The functions here take the place of the ones named in ``REPLACED``. All sizes come from the
arguments' shapes. vLLM's kernels can mark padding tokens with expert -1 to save work; with static
shapes there is no work to save, so padding tokens are routed like the rest.
"""

from typing import NoReturn

import torch

from vllm_hpu.ops.replaced import Replacement

__all__ = ["REPLACED", "grouped_topk", "topk_sigmoid", "topk_softmax"]


def _select(
    scores: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_indices: torch.Tensor,
    renormalize: bool,
    bias: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the best ``k`` of ``scores`` [tokens, experts] (float32), in descending order.

    The bias decides who is chosen; the weights are the unbiased scores. ``k`` and the dtypes of
    the results are those of ``topk_weights`` and ``topk_indices`` [tokens, k], which are not
    written: the callers take the returned tensors.
    """
    k = topk_weights.shape[-1]
    if bias is None:
        weights, experts = scores.topk(k, dim=-1)
    else:
        experts = (scores + bias).topk(k, dim=-1).indices
        weights = scores.gather(-1, experts)
    if renormalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    if scale != 1.0:
        weights = weights * scale
    return weights.to(topk_weights.dtype), experts.to(topk_indices.dtype)


def topk_softmax(
    topk_weights: torch.Tensor,
    topk_indices: torch.Tensor,
    token_expert_indices: torch.Tensor,
    gating_output: torch.Tensor,
    renormalize: bool = False,
    e_score_correction_bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Top-k of the softmax over all experts (Mixtral, Qwen-MoE, GPT-OSS).

    Args:
        topk_weights: ``[tokens, k]`` float32, gives k and the dtype of the weights.
        topk_indices: ``[tokens, k]``, gives the dtype of the expert ids.
        token_expert_indices: ``[tokens, k]``; only vLLM's CUDA path uses it.
        gating_output: router logits ``[tokens, experts]``, any floating dtype.
        renormalize: whether the chosen weights are made to sum to one.
        e_score_correction_bias: ``[experts]``, added for the choice only.

    Returns:
        (weights, expert ids), both ``[tokens, k]``.
    """
    scores = gating_output.softmax(dim=-1, dtype=torch.float32)
    return _select(
        scores, topk_weights, topk_indices, renormalize, e_score_correction_bias, scale=1.0
    )


def topk_sigmoid(
    topk_weights: torch.Tensor,
    topk_indices: torch.Tensor,
    token_expert_indices: torch.Tensor,
    gating_output: torch.Tensor,
    renormalize: bool = False,
    e_score_correction_bias: torch.Tensor | None = None,
    routed_scaling_factor: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`topk_softmax` with a sigmoid per expert; the weights are scaled at the end."""
    scores = gating_output.float().sigmoid()
    return _select(
        scores,
        topk_weights,
        topk_indices,
        renormalize,
        e_score_correction_bias,
        routed_scaling_factor,
    )


def _topk_softmax_plain(
    topk_weights: torch.Tensor,
    topk_indices: torch.Tensor,
    token_expert_indices: torch.Tensor,
    gating_output: torch.Tensor,
    renormalize: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    return topk_softmax(
        topk_weights, topk_indices, token_expert_indices, gating_output, renormalize
    )


def _topk_sigmoid_plain(
    topk_weights: torch.Tensor,
    topk_indices: torch.Tensor,
    token_expert_indices: torch.Tensor,
    gating_output: torch.Tensor,
    renormalize: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    return topk_sigmoid(
        topk_weights, topk_indices, token_expert_indices, gating_output, renormalize
    )


def _topk_softplus_sqrt(
    topk_weights: torch.Tensor,
    topk_indices: torch.Tensor,
    token_expert_indices: torch.Tensor,
    gating_output: torch.Tensor,
    renormalize: bool = False,
    e_score_correction_bias: torch.Tensor | None = None,
    input_tokens: torch.Tensor | None = None,
    hash_indices_table: torch.Tensor | None = None,
    routed_scaling_factor: float = 1.0,
    bias_vl: torch.Tensor | None = None,
    image_sentinel_lo: int = 0,
) -> NoReturn:
    raise NotImplementedError(
        "This model routes tokens to experts by sqrt(softplus) scores (DeepSeek-V4), which "
        "vllm-hpu does not implement yet. Choose a model with softmax or sigmoid routing."
    )


def grouped_topk(
    hidden_states: torch.Tensor,
    gating_output: torch.Tensor,
    topk: int,
    renormalize: bool,
    num_expert_group: int = 0,
    topk_group: int = 0,
    scoring_func: str = "softmax",
    routed_scaling_factor: float = 1.0,
    e_score_correction_bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose groups of experts first, then experts inside them (DeepSeek-V2 and V3).

    A group's rank is its best score; with a bias, the sum of its two best biased scores
    (DeepSeek-V3 report, arXiv 2412.19437, and the model's reference code).

    Args:
        hidden_states: ``[tokens, hidden]``; only its first dimension matters.
        gating_output: router logits ``[tokens, experts]``; experts of a group are neighbours.
        topk: experts per token.
        renormalize: whether the chosen weights are made to sum to one.
        num_expert_group: number of groups; divides the number of experts.
        topk_group: groups that may be used per token.
        scoring_func: ``softmax`` or ``sigmoid``.
        routed_scaling_factor: multiplies the weights at the end.
        e_score_correction_bias: ``[experts]``, added for the choice only.

    Returns:
        weights float32 and expert ids int32, both ``[tokens, topk]``.
    """
    if scoring_func == "softmax":
        scores = gating_output.softmax(dim=-1, dtype=torch.float32)
    elif scoring_func == "sigmoid":
        scores = gating_output.float().sigmoid()
    else:
        raise ValueError(
            f"Unknown scoring function '{scoring_func}' for expert routing; use softmax or sigmoid"
        )
    tokens, experts = scores.shape
    choice = scores if e_score_correction_bias is None else scores + e_score_correction_bias
    groups = choice.view(tokens, num_expert_group, experts // num_expert_group)
    if e_score_correction_bias is None:
        group_rank = groups.amax(dim=-1)
    else:
        group_rank = groups.topk(2, dim=-1).values.sum(dim=-1)
    chosen_groups = group_rank.topk(topk_group, dim=-1).indices
    barred = torch.ones_like(group_rank, dtype=torch.bool).scatter_(1, chosen_groups, False)
    choice = groups.masked_fill(barred.unsqueeze(-1), float("-inf")).view(tokens, experts)
    expert_ids = choice.topk(topk, dim=-1).indices
    weights = scores.gather(1, expert_ids)
    if renormalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    if routed_scaling_factor != 1.0:
        weights = weights * routed_scaling_factor
    return weights, expert_ids.to(torch.int32)


_ROUTER = "vllm.model_executor.layers.fused_moe.router."
_PLAIN = (
    "topk_weights",
    "topk_indices",
    "token_expert_indices",
    "gating_output",
    "renormalize",
)
_COMPILED = "calls torch.ops._moe_C, which is not built for Gaudi"

REPLACED: tuple[Replacement, ...] = (
    Replacement(
        _ROUTER + "fused_topk_router", "vllm_topk_softmax", _PLAIN, _topk_softmax_plain, _COMPILED
    ),
    Replacement(
        _ROUTER + "fused_topk_router", "vllm_topk_sigmoid", _PLAIN, _topk_sigmoid_plain, _COMPILED
    ),
    Replacement(
        _ROUTER + "fused_topk_bias_router",
        "vllm_topk_softmax",
        (*_PLAIN, "e_score_correction_bias"),
        topk_softmax,
        _COMPILED,
    ),
    Replacement(
        _ROUTER + "fused_topk_bias_router",
        "vllm_topk_sigmoid",
        (*_PLAIN, "e_score_correction_bias", "routed_scaling_factor"),
        topk_sigmoid,
        _COMPILED,
    ),
    Replacement(
        _ROUTER + "fused_topk_bias_router",
        "vllm_topk_softplus_sqrt",
        (
            *_PLAIN,
            "e_score_correction_bias",
            "input_tokens",
            "hash_indices_table",
            "routed_scaling_factor",
            "bias_vl",
            "image_sentinel_lo",
        ),
        _topk_softplus_sqrt,
        _COMPILED,
    ),
    Replacement(
        _ROUTER + "grouped_topk_router",
        "grouped_topk",
        (
            "hidden_states",
            "gating_output",
            "topk",
            "renormalize",
            "num_expert_group",
            "topk_group",
            "scoring_func",
            "routed_scaling_factor",
            "e_score_correction_bias",
        ),
        grouped_topk,
        "is wrapped in torch.compile with dynamic shapes, one more recipe per batch size",
    ),
)
