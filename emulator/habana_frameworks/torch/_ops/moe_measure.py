"""``hpu::mixture_of_experts``: the overloads that measure the experts' inner values.

Calibration for FP8 runs them in place of the plain ones and keeps the second result. Schemas:
scripts/hpu_op.yaml and habana_eager/eager_custom_op_register.cpp of HabanaAI/gaudi-pytorch-bridge
(newer public commit); what is measured: ``mixture_of_experts_common`` of release 1.19.0, and for
the overload with biases, which that release lacks, of the newer commit.
"""

from typing import Any

import torch

from .library import argument_names, device_kernel, operator
from .moe import check_experts
from .moe_kernel import ACTIVATIONS, clamped_swiglu, gated_experts, swiglu_oai_experts

__all__ = ["measured"]

_HEAD = "Tensor hidden_states, Tensor expert_routing_table, Tensor router_weights"
_TAIL = (
    "bool permuted_weights, str activation, int experts_min, int experts_max,"
    " bool measurement_mode, *, int chunk_size=0, int total_experts=0) -> (Tensor, Tensor)"
)
_BIAS_TAIL = (
    "bool permuted_weights, int experts_min, int experts_max, bool measure_per_token,"
    " int chunk_size=0, int total_experts=0, float alpha=1.702, float limit=7.0)"
    " -> (Tensor, Tensor)"
)


def _columns(weight: torch.Tensor, transposed: bool) -> torch.Tensor:
    return weight.t() if transposed else weight


@device_kernel(
    "largest_inner_values(Tensor hidden, Tensor[] w12, Tensor[] w2, bool permuted_weights,"
    " str activation) -> Tensor"
)
def _largest(
    hidden: torch.Tensor,
    w12: list[torch.Tensor],
    w2: list[torch.Tensor],
    permuted_weights: bool,
    activation: str,
) -> torch.Tensor:
    """The largest value of ``act(gate) * up`` over all tokens, per expert: float32 ``[experts]``.

    Not of the magnitude, and over tokens of other experts as well, as release 1.19.0 measures.
    """
    act = ACTIVATIONS[activation]
    result = torch.zeros(len(w12), dtype=torch.float32)
    if hidden.shape[0] == 0:
        return result
    for index, weight in enumerate(w12):
        first = hidden @ _columns(weight, permuted_weights)
        if w2:
            gate, up = first, hidden @ _columns(w2[index], permuted_weights)
        else:
            gate, up = first.chunk(2, dim=-1)
        result[index] = (act(gate) * up).amax()
    return result


@device_kernel(
    "largest_oai_inner_values(Tensor hidden, Tensor routing, Tensor[] w12, Tensor[] w12_bias,"
    " bool permuted_weights, int experts_min, bool per_token, float alpha, float limit) -> Tensor"
)
def _largest_oai(
    hidden: torch.Tensor,
    routing: torch.Tensor,
    w12: list[torch.Tensor],
    w12_bias: list[torch.Tensor],
    permuted_weights: bool,
    experts_min: int,
    per_token: bool,
    alpha: float,
    limit: float,
) -> torch.Tensor:
    """The largest magnitude of an expert's own tokens: ``[experts]``, or ``[experts, tokens]``."""
    result = torch.zeros(len(w12), hidden.shape[0], dtype=torch.float32)
    for index, (weight, bias) in enumerate(zip(w12, w12_bias, strict=True)):
        both = hidden @ _columns(weight, permuted_weights) + bias
        inner = clamped_swiglu(both, alpha, limit)
        mine = (routing == experts_min + index).any(dim=-1)
        result[index] = inner.to(torch.float32).abs().amax(dim=-1) * mine
    if per_token:
        return result
    return result.amax(dim=-1) if hidden.shape[0] else result.sum(dim=-1)


def _fake(hidden_states: torch.Tensor, experts: int, tokens: int | None) -> tuple:
    shape = [experts] if tokens is None else [experts, tokens]
    return torch.empty_like(hidden_states), hidden_states.new_empty(shape, dtype=torch.float32)


def measured(**named: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Gated experts and, with ``measurement_mode``, each expert's largest inner value.

    Arguments are those of ``mixture_of_experts`` or its overload ``fused_weights``.

    Returns:
        ``[tokens, hidden]``, and float32 ``[experts]`` (zeros without ``measurement_mode``).
    """
    first, second = named.get("w12") or named["w1"], named.get("w2") or []
    lists: dict[str, list] = {
        name: named[name] for name in ("w12", "w1", "w2", "w3") if name in named
    }
    common = named["hidden_states"], named["expert_routing_table"], named["router_weights"]
    limits = named["experts_min"], named["experts_max"]
    permuted, activation = named["permuted_weights"], named["activation"]
    check_experts(*common, lists, *limits, activation)
    result = gated_experts(*common, first, second, named["w3"], permuted, activation, *limits)
    if not named["measurement_mode"]:
        return result, torch.zeros(len(first), dtype=torch.float32, device=result.device)
    return result, _largest(common[0], first, second, permuted, activation)


def _measured_bias(**named: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """GPT-OSS experts and the largest magnitude of their inner values.

    Returns:
        ``[tokens, hidden]``, and float32 ``[experts]``, or ``[experts, tokens]`` with
        ``measure_per_token``.
    """
    lists: dict[str, list] = {name: named[name] for name in ("w12", "w3", "w12_bias", "w3_bias")}
    common = named["hidden_states"], named["expert_routing_table"], named["router_weights"]
    limits = named["experts_min"], named["experts_max"]
    shape = named.get("alpha", 1.702), named.get("limit", 7.0)
    permuted = named["permuted_weights"]
    check_experts(*common, lists, *limits)
    result = swiglu_oai_experts(*common, *lists.values(), permuted, *limits, *shape)
    largest = _largest_oai(
        common[0],
        common[1],
        lists["w12"],
        lists["w12_bias"],
        permuted,
        limits[0],
        named["measure_per_token"],
        *shape,
    )
    return result, largest


def _register() -> None:
    for overload, weights in (
        ("fp8_measurement", "Tensor[] w1, Tensor[] w2, Tensor[] w3"),
        ("fp8_measurement_fused_weights", "Tensor[] w12, Tensor[] w3"),
    ):
        schema = f"mixture_of_experts.{overload}({_HEAD}, {weights}, {_TAIL}"
        names = argument_names(schema)

        def kernel(*args: Any, _names: list[str] = names, **kwargs: Any) -> tuple:
            return measured(**dict(zip(_names, args, strict=False)), **kwargs)

        operator(schema, lambda hidden, r, w, w12, *a, **k: _fake(hidden, len(w12), None))(kernel)
    schema = (
        f"mixture_of_experts.measurement_bias_fused_weights({_HEAD}, Tensor[] w12, Tensor[] w3,"
        f" Tensor[] w12_bias, Tensor[] w3_bias, *, {_BIAS_TAIL}"
    )
    bias_names = argument_names(schema)

    def fake(hidden: torch.Tensor, r: Any, w: Any, w12: Any, *args: Any, **kwargs: Any) -> tuple:
        tokens = hidden.shape[0] if kwargs["measure_per_token"] else None
        return _fake(hidden, len(w12), tokens)

    def bias_kernel(*args: Any, **kwargs: Any) -> tuple:
        return _measured_bias(**dict(zip(bias_names, args, strict=False)), **kwargs)

    operator(schema, fake)(bias_kernel)


_register()
