"""Mixture-of-experts layers without quantisation, on the card's fused kernel.

Replaces vLLM's ``UnquantizedFusedMoEMethod``, which on an out-of-tree platform comes without a
kernel. Routing, expert parallelism and the reduction over ranks stay vLLM's.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import (
    UnquantizedFusedMoEMethod,
)

from vllm_hpu.errors import UnsupportedFeatureError
from vllm_hpu.ops.experts import ExpertWeights, SwigluOai, run_on_card, run_plain

if TYPE_CHECKING:
    from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig
    from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
    from vllm.model_executor.layers.fused_moe.runner.shared_experts import SharedExperts

__all__ = ["HpuUnquantizedFusedMoEMethod", "plain_activation", "register"]

Activation = Callable[[torch.Tensor], torch.Tensor]


def _gated(gate_function: Activation) -> Activation:
    """``[..., 2 · ffn]``, gate first: ``gate_function(gate) · up``."""

    def apply(x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, dim=-1)
        return gate_function(gate) * up

    return apply


def _clamped_swiglu(limit: float, alpha: float, beta: float, interleaved: bool) -> Activation:
    """``(up + beta) · gate · sigmoid(alpha · gate)``, gate ≤ limit, |up| ≤ limit."""

    def apply(x: torch.Tensor) -> torch.Tensor:
        gate, up = (x[..., ::2], x[..., 1::2]) if interleaved else x.chunk(2, dim=-1)
        gate = gate.clamp(max=limit)
        up = up.clamp(min=-limit, max=limit)
        return (up + beta) * gate * torch.sigmoid(alpha * gate)

    return apply


def _gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x, approximate="tanh")


# Gated forms only: vLLM refuses ungated experts on platforms it does not know.
_PLAIN: dict[MoEActivation, Activation] = {
    MoEActivation.SILU: _gated(F.silu),
    MoEActivation.GELU: _gated(F.gelu),
    MoEActivation.GELU_TANH: _gated(_gelu_tanh),
}


def plain_activation(
    activation: MoEActivation, limit: float | None, alpha: float | None, beta: float | None
) -> Activation:
    """The torch form of an activation, with the clamp parameters of the layer.

    Raises:
        NotImplementedError: none is known.
    """
    if activation == MoEActivation.SWIGLUOAI:
        return _clamped_swiglu(SwigluOai.limit, SwigluOai.alpha, 1.0, interleaved=True)
    clamps = activation in (MoEActivation.SILU, MoEActivation.SWIGLUOAI_UNINTERLEAVE)
    if clamps and limit is not None:
        # SiLU with a limit is the same formula with alpha 1 and beta 0.
        plain_silu = activation == MoEActivation.SILU
        return _clamped_swiglu(
            limit,
            1.0 if alpha is None or plain_silu else alpha,
            0.0 if beta is None or plain_silu else beta,
            interleaved=False,
        )
    if activation not in _PLAIN:
        raise NotImplementedError(
            f"The experts of this model use the activation '{activation.value}', which vllm-hpu "
            f"does not implement. Implemented: "
            f"{', '.join(sorted(known.value for known in _PLAIN))}, swigluoai."
        )
    return _PLAIN[activation]


def _card_activation(layer: "RoutedExperts", has_bias: bool) -> str | SwigluOai | None:
    """The card kernel's name for the layer's activation, or None when it has none."""
    if layer.activation == MoEActivation.SWIGLUOAI and has_bias:
        return SwigluOai()
    if has_bias:
        return None
    if layer.activation == MoEActivation.SILU and layer.swiglu_limit is None:
        return "silu"
    if layer.activation == MoEActivation.GELU:
        return "gelu"
    return None


class HpuUnquantizedFusedMoEMethod(UnquantizedFusedMoEMethod):
    """Experts in bfloat16, float16 or float32.

    Raises:
        UnsupportedFeatureError: LoRA is enabled.
    """

    def __init__(self, moe: "FusedMoEConfig") -> None:
        if moe.is_lora_enabled:
            # vLLM wraps experts for LoRA around its modular kernels, which do not exist here; its
            # own error comes later and names neither the option nor the layer.
            raise UnsupportedFeatureError(
                "--enable-lora does not work with mixture-of-experts models on Gaudi",
                "adapters for experts are not implemented",
                "Serve the model without --enable-lora, or with the adapter merged in",
            )
        super().__init__(moe)
        self._weights: ExpertWeights | None = None
        # The parameters that self._weights views; a weight update may put others in their place.
        self._viewed: tuple[torch.Tensor, torch.Tensor] | None = None
        self._placement: tuple[int, torch.Tensor | None] | None = None
        self._plain: Activation | None = None

    @property
    def is_monolithic(self) -> bool:
        """False: vLLM's router chooses the experts before :meth:`forward_oot`."""
        return False

    @property
    def supports_eplb(self) -> bool:
        """False: experts that change places would change the graphs' constants."""
        return False

    def process_weights_after_loading(self, layer: "RoutedExperts") -> None:
        """Check the activation and prepare the lists of weights; vLLM's form only pads for ROCm.

        Raises:
            NotImplementedError: the activation is neither on the card nor known in torch form.
        """
        if _card_activation(layer, self.moe.has_bias) is None:
            self._plain = plain_activation(
                layer.activation, layer.swiglu_limit, layer.swiglu_alpha, layer.swiglu_beta
            )
        self._placement = _placement(layer.expert_map)
        self._view(layer)

    def _view(self, layer: "RoutedExperts") -> ExpertWeights:
        """Views of the layer's parameters per expert, taken anew when the parameters changed."""
        current = (layer.w13_weight, layer.w2_weight)
        if self._viewed is None or any(
            seen is not now for seen, now in zip(self._viewed, current, strict=True)
        ):
            biased = self.moe.has_bias
            self._weights = ExpertWeights(
                w13=current[0].data.unbind(0),
                w2=current[1].data.unbind(0),
                w13_bias=layer.w13_bias.data.unbind(0) if biased else None,
                w2_bias=layer.w2_bias.data.unbind(0) if biased else None,
            )
            self._viewed = current
        assert self._weights is not None
        return self._weights

    def forward_oot(
        self,
        layer: "RoutedExperts",
        x: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        shared_experts: "SharedExperts | None",
        shared_experts_input: torch.Tensor | None,
    ) -> torch.Tensor:
        """Run this rank's experts.

        Args:
            layer: holds the weights.
            x: ``[tokens, hidden]``.
            topk_weights: ``[tokens, k]`` float32.
            topk_ids: ``[tokens, k]`` global expert ids; -1 means no expert.
            shared_experts, shared_experts_input: run by vLLM outside of this method.

        Returns:
            ``[tokens, hidden]``: the sum over this rank's experts only.
        """
        weights = self._view(layer)
        assert self._placement is not None  # set with the weights
        first_expert, expert_map = self._placement
        if expert_map is not None:
            topk_ids = expert_map[topk_ids.clamp(min=0).long()].where(topk_ids >= 0, -1)
        # The kernel must not see a negative id; expert 0 with weight 0 adds nothing.
        router_weights = torch.where(topk_ids >= 0, topk_weights, 0).to(x.dtype)
        expert_ids = topk_ids.clamp(min=0).long()
        if layer.apply_router_weight_on_input:
            if topk_ids.shape[-1] != 1:
                raise ValueError(
                    "Router weights on the input need one expert per token, but the model has "
                    f"{topk_ids.shape[-1]} (num_experts_per_tok)."
                )
            x = x * router_weights
            # What was masked above stays masked; every other row is now weighted already.
            router_weights = (topk_ids >= 0).to(x.dtype)
        on_card = _card_activation(layer, self.moe.has_bias)
        if on_card is not None:
            return run_on_card(x, weights, expert_ids, router_weights, first_expert, on_card)
        assert self._plain is not None  # set with the weights
        return run_plain(x, weights, expert_ids, router_weights, first_expert, self._plain)


def _placement(expert_map: torch.Tensor | None) -> tuple[int, torch.Tensor | None]:
    """Where this rank's experts stand among all.

    Args:
        expert_map: ``[experts]``, local index of every global expert or -1; None: all are local.

    Returns:
        the id that the first local expert has in the kernel's arguments, and the map that turns
        global ids into such ids, or None when the ids can stay global (local experts are
        neighbours, in order: vLLM's linear placement).
    """
    if expert_map is None:
        return 0, None
    local = expert_map.tolist()
    here = [index for index, slot in enumerate(local) if slot >= 0]
    if not here:
        return 0, expert_map
    contiguous = here == list(range(here[0], here[0] + len(here)))
    if contiguous and [local[index] for index in here] == list(range(len(here))):
        return here[0], None
    return 0, expert_map


def register() -> None:
    """Register the method in place of vLLM's; harmless when repeated."""
    if UnquantizedFusedMoEMethod.__name__ not in op_registry_oot:
        UnquantizedFusedMoEMethod.register_oot(HpuUnquantizedFusedMoEMethod)
