"""A mixture-of-experts layer as vLLM builds it, and the same in float64 one token at a time."""

import math
import socket
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import (
    destroy_distributed_environment,
    destroy_model_parallel,
    init_distributed_environment,
    initialize_model_parallel,
)

HIDDEN = 24
FFN = 16


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def one_rank():
    """vLLM's process groups for a single process."""
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(
            world_size=1,
            rank=0,
            local_rank=0,
            distributed_init_method=f"tcp://127.0.0.1:{free_port()}",
            backend="gloo",
        )
        initialize_model_parallel(1, 1)
    try:
        yield
    finally:
        destroy_model_parallel()
        destroy_distributed_environment()


@dataclass
class Layer:
    """What distinguishes one model family's experts from another's."""

    experts: int = 6
    top_k: int = 2
    activation: str = "silu"
    scoring: str = "softmax"
    renormalize: bool = True
    groups: int | None = None
    top_groups: int | None = None
    bias: bool = False
    score_bias: bool = False
    scale: float = 1.0
    weight_on_input: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def weights_of(case: Layer, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights in float32 on the host."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return torch.randn(*shape, generator=generator) * scale

    inner = 2 * FFN
    weights = {
        "w13": normal(case.experts, inner, HIDDEN, scale=HIDDEN**-0.5),
        "w2": normal(case.experts, HIDDEN, FFN, scale=FFN**-0.5),
        "score_bias": normal(case.experts, scale=0.3),
    }
    if case.bias:
        weights["w13_bias"] = normal(case.experts, inner)
        weights["w2_bias"] = normal(case.experts, HIDDEN)
    return weights


def exact_activation(case: Layer, x: torch.Tensor) -> torch.Tensor:
    """Activation of one token ``[inner]``, float64, from the models' definitions."""

    def silu(v):
        return v / (1 + math.e ** (-v))

    def gelu(v):
        return v * 0.5 * (1 + torch.erf(v / math.sqrt(2)))

    def gelu_tanh(v):
        return 0.5 * v * (1 + torch.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))

    if case.activation == "swigluoai":
        gate, up = x[::2].clamp(max=7.0), x[1::2].clamp(-7.0, 7.0)
        return (up + 1) * gate / (1 + math.e ** (-1.702 * gate))
    gate, up = x[:FFN], x[FFN:]
    limit = case.extra.get("swiglu_limit")
    if limit is not None:
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    functions = {"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh}
    return functions[case.activation](gate) * up


def exact_route(case: Layer, logits: torch.Tensor, score_bias) -> dict[int, float]:
    """Experts and weights of one token ``[experts]``, from the models' definitions."""
    logits = logits.double()
    scores = logits.softmax(-1) if case.scoring == "softmax" else 1 / (1 + math.e ** (-logits))
    scores = scores.tolist()
    bias = score_bias.double().tolist() if case.score_bias else [0.0] * case.experts
    choice = {index: scores[index] + bias[index] for index in range(case.experts)}
    if case.groups is not None:
        size = case.experts // case.groups
        ranks = []
        for group in range(case.groups):
            inside = sorted(choice[i] for i in range(group * size, (group + 1) * size))
            ranks.append((sum(inside[-2:]) if case.score_bias else inside[-1], group))
        kept = {group for _, group in sorted(ranks)[-case.top_groups :]}
        choice = {i: value for i, value in choice.items() if i // size in kept}
    chosen = sorted(choice, key=lambda i: choice[i])[-case.top_k :]
    total = sum(scores[i] for i in chosen) if case.renormalize else 1.0
    return {i: scores[i] / total * case.scale for i in chosen}


def exact_experts(case: Layer, weights, x: torch.Tensor, routes) -> torch.Tensor:
    """``[tokens, HIDDEN]`` float64: a loop over tokens and their experts."""
    out = torch.zeros(x.shape[0], HIDDEN, dtype=torch.float64)
    for token, route in enumerate(routes):
        for expert, share in route.items():
            v = x[token].double() * (share if case.weight_on_input else 1.0)
            inner = weights["w13"][expert].double() @ v
            if case.bias:
                inner = inner + weights["w13_bias"][expert].double()
            outer = weights["w2"][expert].double() @ exact_activation(case, inner)
            if case.bias:
                outer = outer + weights["w2_bias"][expert].double()
            out[token] += outer * (1.0 if case.weight_on_input else share)
    return out
