"""Mixture-of-experts layers, built by vLLM's own factory, on the device."""

import inspect

import pytest
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.config.lora import LoRAConfig
from vllm.forward_context import set_forward_context
from vllm.model_executor.layers.fused_moe.expert_map_manager import determine_expert_map
from vllm.model_executor.layers.fused_moe.layer import FusedMoEFactory

from tests.device.moe_case import (
    FFN,
    HIDDEN,
    Layer,
    exact_experts,
    exact_route,
    one_rank,
    weights_of,
)
from vllm_hpu import ops
from vllm_hpu.errors import UnsupportedFeatureError
from vllm_hpu.ops import routing
from vllm_hpu.ops.moe import HpuUnquantizedFusedMoEMethod
from vllm_hpu.ops.replaced import Replacement, UpstreamChangedError, install

FAMILIES = {
    "mixtral": Layer(experts=8),
    "qwen3": Layer(experts=16, top_k=4),
    "qwen2": Layer(experts=6, top_k=3, renormalize=False),
    "gpt-oss": Layer(experts=8, top_k=4, activation="swigluoai", bias=True),
    "deepseek-v2": Layer(experts=8, groups=4, top_groups=2, renormalize=False, scale=16.0),
    "deepseek-v3": Layer(
        experts=16, top_k=4, scoring="sigmoid", groups=4, top_groups=2, score_bias=True, scale=2.5
    ),
    "llama4": Layer(top_k=1, scoring="sigmoid", renormalize=False, weight_on_input=True),
    "sigmoid bias": Layer(scoring="sigmoid", score_bias=True, scale=1.5),
    "softmax bias": Layer(scoring="softmax", score_bias=True),
    "gelu": Layer(activation="gelu"),
    "not on the card: gelu tanh": Layer(activation="gelu_tanh"),
    "not on the card: biased silu": Layer(bias=True),
    "not on the card: oai without bias": Layer(activation="swigluoai"),
    "not on the card: clamped silu": Layer(extra={"swiglu_limit": 0.4}),
}


@pytest.fixture(scope="module", autouse=True)
def one_process():
    ops.register()
    with one_rank():
        yield


def build(case: Layer, weights, name: str, dtype=torch.float32, **options):
    """The layer on the device with the given weights, and its configuration."""
    config = VllmConfig(**options)
    grouped = {}
    if case.groups is not None:
        grouped = {
            "use_grouped_topk": True,
            "num_expert_group": case.groups,
            "topk_group": case.top_groups,
        }
    with set_current_vllm_config(config), torch.device("hpu"):
        layer = FusedMoEFactory(
            case.experts,
            case.top_k,
            HIDDEN,
            FFN,
            params_dtype=dtype,
            renormalize=case.renormalize,
            scoring_func=case.scoring,
            routed_scaling_factor=case.scale,
            activation=case.activation,
            has_bias=case.bias,
            apply_router_weight_on_input=case.weight_on_input,
            e_score_correction_bias=weights["score_bias"].to("hpu") if case.score_bias else None,
            prefix=name,
            **grouped,
            **case.extra,
        )
    experts = layer.routed_experts
    with torch.no_grad():
        for key, parameter in (("w13", experts.w13_weight), ("w2", experts.w2_weight)):
            parameter.copy_(weights[key].to("hpu"))
        if case.bias:
            experts.w13_bias.copy_(weights["w13_bias"].to("hpu"))
            experts.w2_bias.copy_(weights["w2_bias"].to("hpu"))
    experts.quant_method.process_weights_after_loading(experts)
    return layer, config


def run(layer, config, x, logits):
    with (
        torch.inference_mode(),
        set_current_vllm_config(config),
        set_forward_context(None, config, num_tokens=x.shape[0]),
    ):
        return layer(x.to("hpu"), logits.to("hpu")).cpu()


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_is_exact(family):
    case = FAMILIES[family]
    torch.manual_seed(5)
    weights = weights_of(case)
    layer, config = build(case, weights, family)
    assert isinstance(layer.routed_experts.quant_method, HpuUnquantizedFusedMoEMethod)
    x, logits = torch.randn(9, HIDDEN), torch.randn(9, case.experts) * 2
    routes = [exact_route(case, row, weights["score_bias"]) for row in logits]
    wanted = exact_experts(case, weights, x, routes)
    got = run(layer, config, x, logits)
    torch.testing.assert_close(got.double(), wanted, rtol=2e-5, atol=2e-5)


def test_gpt_oss_in_bfloat16():
    case = FAMILIES["gpt-oss"]
    torch.manual_seed(6)
    weights = {name: value.bfloat16() for name, value in weights_of(case).items()}
    layer, config = build(case, weights, "gpt-oss-bf16", torch.bfloat16)
    x, logits = torch.randn(33, HIDDEN).bfloat16(), torch.randn(33, case.experts).bfloat16()
    routes = [exact_route(case, row, weights["score_bias"]) for row in logits]
    wanted = exact_experts(case, weights, x, routes)
    got = run(layer, config, x, logits).double()
    assert (got - wanted).norm() / wanted.norm() < 1e-2


def test_replaced_weights_are_seen():
    """A weight update may put new parameters in place; lists made at load time would be stale."""
    case = FAMILIES["mixtral"]
    layer, config = build(case, weights_of(case), "reloaded")
    fresh = weights_of(case, seed=1)
    experts = layer.routed_experts
    experts.w13_weight = torch.nn.Parameter(fresh["w13"].to("hpu"), requires_grad=False)
    experts.w2_weight = torch.nn.Parameter(fresh["w2"].to("hpu"), requires_grad=False)
    x, logits = torch.randn(4, HIDDEN), torch.randn(4, case.experts)
    routes = [exact_route(case, row, None) for row in logits]
    wanted = exact_experts(case, fresh, x, routes)
    torch.testing.assert_close(run(layer, config, x, logits).double(), wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("placement", ["linear", "round_robin"])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_expert_parallel_shares_add_up(placement, ranks):
    """Every expert is computed on exactly one rank, also when the experts do not divide evenly."""
    case = Layer(experts=10, top_k=3)
    weights = weights_of(case)
    x = torch.randn(6, HIDDEN)
    ids = torch.stack([torch.randperm(case.experts)[: case.top_k] for _ in range(6)])
    ids[2, 1] = -1  # no expert: a token that another rank padded
    shares = torch.rand(6, case.top_k)
    routes = [
        {expert: share for expert, share in zip(*row, strict=True) if expert >= 0}
        for row in zip(ids.tolist(), shares.tolist(), strict=True)
    ]
    wanted = exact_experts(case, weights, x, routes)
    total = torch.zeros(6, HIDDEN)
    for rank in range(ranks):
        _, expert_map, _ = determine_expert_map(ranks, rank, case.experts, placement)
        here = [i for i in range(case.experts) if expert_map[i] >= 0]
        local = {key: value[here] for key, value in weights.items()}
        layer, _ = build(Layer(experts=len(here), top_k=3), local, f"{placement}-{ranks}-{rank}")
        experts = layer.routed_experts
        experts._expert_map = expert_map.to("hpu")
        experts.quant_method.process_weights_after_loading(experts)
        with torch.inference_mode():
            part = experts.quant_method.apply(
                experts, x.to("hpu"), shares.to("hpu"), ids.to(torch.int32).to("hpu"), None, None
            )
        total += part.cpu()
    torch.testing.assert_close(total.double(), wanted, rtol=2e-5, atol=2e-5)


def test_unknown_activation_is_refused_at_load():
    with pytest.raises(NotImplementedError, match="swiglustep"):
        build(Layer(activation="swiglustep"), weights_of(Layer()), "refused")


def test_lora_on_experts_is_refused_by_the_options_name():
    lora = LoRAConfig(max_lora_rank=8, lora_dtype=torch.float32)
    with pytest.raises(UnsupportedFeatureError, match="--enable-lora"):
        build(Layer(), weights_of(Layer()), "lora", lora_config=lora)


def test_substitutes_take_what_vllm_passes():
    for entry in routing.REPLACED:
        assert tuple(inspect.signature(entry.substitute).parameters) == entry.parameters


def test_a_changed_upstream_function_is_named():
    gone = Replacement("vllm.envs", "no_such_function", (), print, "test")
    moved = Replacement("vllm.config", "set_current_vllm_config", ("other",), print, "test")
    for entry, words in ((gone, "no_such_function"), (moved, "set_current_vllm_config")):
        with pytest.raises(UpstreamChangedError, match=words):
            install([entry])
