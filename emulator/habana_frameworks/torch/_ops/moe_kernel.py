"""The work of ``hpu::mixture_of_experts``, over host tensors: group tokens by expert, then GEMMs.

Semantics: docs/bridge reference of the operator in HabanaAI/gaudi-pytorch-bridge, tests
``test_hpu_mixture_of_experts.py``: for every local expert take the tokens routed to it,
``y = (act(x w1) * (x w2)) w3``, and add ``router_weight * y`` to the token's output.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from .library import device_kernel

__all__ = ["ACTIVATIONS", "clamped_swiglu", "gated_experts", "per_expert", "swiglu_oai_experts"]

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "relu": F.relu,
}


def _project(x: torch.Tensor, weight: torch.Tensor, transposed: bool) -> torch.Tensor:
    return x @ (weight.t() if transposed else weight)


def per_expert(
    hidden: torch.Tensor,
    routing: torch.Tensor,
    router_weights: torch.Tensor,
    first: int,
    last: int,
    expert: Callable[[int, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Run ``expert(local_index, tokens)`` on each local expert's tokens and sum the results.

    Args:
        hidden: ``[tokens, hidden]``.
        routing: ``[tokens, k]`` global expert ids; ids outside ``first..last`` belong to other
            ranks and add nothing.
        router_weights: ``[tokens, k]``.

    Returns:
        float32 ``[tokens, hidden]``.
    """
    per_token = routing.shape[-1]
    ids = routing.reshape(-1).to(torch.int64) - first
    weights = router_weights.reshape(-1, 1).to(torch.float32)
    count = last - first + 1
    order = torch.argsort(ids, stable=True)
    sorted_ids = ids[order]
    bounds = torch.searchsorted(sorted_ids, torch.arange(count + 1, device=ids.device)).tolist()
    tokens = torch.div(order, per_token, rounding_mode="floor")
    out = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
    for index in range(count):
        begin, end = bounds[index], bounds[index + 1]
        if begin == end:
            continue
        rows = tokens[begin:end]
        result = expert(index, hidden[rows]).to(torch.float32)
        out.index_add_(0, rows, result.mul_(weights[order[begin:end]]))
    return out


def clamped_swiglu(both: torch.Tensor, alpha: float, limit: float) -> torch.Tensor:
    """``(up + 1) * gate * sigmoid(alpha gate)``, both clamped; gate in even columns, up in odd."""
    gate = both[..., ::2].clamp(max=limit)
    up = both[..., 1::2].clamp(min=-limit, max=limit)
    return (up + 1) * (gate * torch.sigmoid(gate * alpha))


@device_kernel(
    "gated_experts(Tensor hidden, Tensor routing, Tensor router_weights, Tensor[] w12,"
    " Tensor[] w2, Tensor[] w3, bool permuted_weights, str activation, int experts_min,"
    " int experts_max) -> Tensor"
)
def gated_experts(
    hidden: torch.Tensor,
    routing: torch.Tensor,
    router_weights: torch.Tensor,
    w12: list[torch.Tensor],
    w2: list[torch.Tensor],
    w3: list[torch.Tensor],
    permuted_weights: bool,
    activation: str,
    experts_min: int,
    experts_max: int,
) -> torch.Tensor:
    """``(act(gate) * up) @ w3`` per expert; ``w12`` holds gate and up, or only gate beside ``w2``.

    Returns ``[tokens, hidden]`` in the dtype of ``hidden``.
    """
    act = ACTIVATIONS[activation]

    def expert(index: int, x: torch.Tensor) -> torch.Tensor:
        first = _project(x, w12[index], permuted_weights)
        if w2:
            gate, up = first, _project(x, w2[index], permuted_weights)
        else:
            gate, up = first.chunk(2, dim=-1)
        return _project(act(gate).mul_(up), w3[index], permuted_weights)

    out = per_expert(hidden, routing, router_weights, experts_min, experts_max, expert)
    return out.to(hidden.dtype)


@device_kernel(
    "swiglu_oai_experts(Tensor hidden, Tensor routing, Tensor router_weights, Tensor[] w12,"
    " Tensor[] w3, Tensor[] w12_bias, Tensor[] w3_bias, bool permuted_weights, int experts_min,"
    " int experts_max, float alpha, float limit) -> Tensor"
)
def swiglu_oai_experts(
    hidden: torch.Tensor,
    routing: torch.Tensor,
    router_weights: torch.Tensor,
    w12: list[torch.Tensor],
    w3: list[torch.Tensor],
    w12_bias: list[torch.Tensor],
    w3_bias: list[torch.Tensor],
    permuted_weights: bool,
    experts_min: int,
    experts_max: int,
    alpha: float,
    limit: float,
) -> torch.Tensor:
    """GPT-OSS experts: gate and up interleaved, clamped, ``(up + 1) * gate * sigmoid(alpha gate)``.

    Returns ``[tokens, hidden]`` in the dtype of ``hidden``.
    """

    def expert(index: int, x: torch.Tensor) -> torch.Tensor:
        both = _project(x, w12[index], permuted_weights) + w12_bias[index]
        inner = clamped_swiglu(both, alpha, limit)
        return _project(inner, w3[index], permuted_weights) + w3_bias[index]

    out = per_expert(hidden, routing, router_weights, experts_min, experts_max, expert)
    return out.to(hidden.dtype)
