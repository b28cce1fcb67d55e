"""Models whose layers have no Gaudi implementation yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_hpu.errors import ConfigurationError, UnsupportedFeatureError

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def decoder_only(config: VllmConfig) -> None:
    """Cross attention is missing."""
    model = config.model_config
    if model is not None and model.is_encoder_decoder:
        raise UnsupportedFeatureError(
            f"{model.architecture} is an encoder-decoder model; cross attention is not supported "
            f"on Gaudi by this version of vllm-hpu. Use a decoder-only model."
        )


def attention_only(config: VllmConfig) -> None:
    """State-space layers are missing."""
    model = config.model_config
    if model is not None and (model.is_hybrid or model.is_attention_free):
        raise UnsupportedFeatureError(
            f"{model.architecture} has state-space (Mamba, linear attention) layers, which are "
            f"not supported on Gaudi by this version of vllm-hpu. Use an attention-only model."
        )


def causal_images(config: VllmConfig) -> None:
    """Attention here is causal, also among the tokens of one image.

    The engine's model is asked: a layer that is built sees the configuration of its text part,
    which does not say it. With images switched off, vLLM answers no.
    """
    model = config.model_config
    if model is not None and model.is_mm_prefix_lm:
        raise UnsupportedFeatureError(
            f"{model.architecture} lets the tokens of an image attend to each other both ways, "
            "which is not supported on Gaudi by this version of vllm-hpu",
            "Its answers about images would be wrong",
            "Serve text alone with --language-model-only, or use another model",
        )


def pooled_in_one_step(config: VllmConfig) -> None:
    """Some results need all of a prompt's tokens in one step; vLLM only warns, and then raises."""
    model, scheduler, cache = config.model_config, config.scheduler_config, config.cache_config
    if model is None or model.runner_type != "pooling":
        return
    asked = {
        "--enable-chunked-prefill": scheduler.enable_chunked_prefill
        and not model.is_chunked_prefill_supported,
        "--enable-prefix-caching": cache.enable_prefix_caching
        and not model.is_prefix_caching_supported,
    }
    for flag, wrong in asked.items():
        if wrong:
            raise ConfigurationError(
                f"{flag} does not work with the pooling of {model.architecture}",
                "It needs all tokens of a prompt in one step",
                f"Remove {flag}",
            )
