"""What decides how the graphs of an engine look: the same facts, the same graphs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
import vllm

import vllm_hpu
from vllm_hpu.device.info import device_info
from vllm_hpu.settings import settings

if TYPE_CHECKING:
    from vllm.config import ModelConfig, SpeculativeConfig, VllmConfig

    from vllm_hpu.graphs.mode import Mode
    from vllm_hpu.shapes.limits import Limits

# Where a model lies and what wrote its configuration changes no graph.
_IRRELEVANT = ("_name_or_path", "name_or_path", "transformers_version")


def graph_facts(config: VllmConfig, limits: Limits, mode: Mode, num_blocks: int) -> dict[str, Any]:
    """The facts of an engine, as JSON can express them.

    Args:
        limits: those of its shape plan.
        num_blocks: blocks of its KV cache, whose shape is part of every graph.
    """
    parallel, lora = config.parallel_config, config.lora_config
    device = device_info()
    return {
        "model": _model(config.model_config),
        "kv_cache": [config.cache_config.cache_dtype, num_blocks],
        "limits": asdict(limits),
        "mode": [mode.value, settings().compile_fullgraph],
        "tensor_parallel": parallel.tensor_parallel_size,
        "ranks": parallel.world_size,
        # vLLM's own hashes are over what shapes a graph.
        "lora": lora and [lora.compute_hash(), lora.specialize_active_lora],
        "attention": config.attention_config.compute_hash(),
        "operators": [config.compilation_config.custom_ops, config.kernel_config.compute_hash()],
        "speculation": _speculation(config.speculative_config),
        "software": [vllm_hpu.__version__, vllm.__version__, torch.__version__, device.software],
        "device": device.name,
    }


def _model(model: ModelConfig) -> dict[str, Any]:
    """What of a model decides its forward."""
    sizes = model.hf_config.to_dict()
    return {
        "config": {name: value for name, value in sizes.items() if name not in _IRRELEVANT},
        "dtype": str(model.dtype),
        # A checkpoint's own quantisation is in its configuration; this is what the user adds.
        "quantization": [model.quantization, model.quantization_config],
        "implementation": str(model.model_impl),
        "task": [model.runner_type, model.convert_type],
        "sliding_window": not model.disable_sliding_window,
    }


def _speculation(speculative: SpeculativeConfig | None) -> dict[str, Any] | None:
    """How drafts come about. Without a draft model of its own, the target stands for it."""
    if speculative is None:
        return None
    draft, parallel = speculative.draft_model_config, speculative.draft_parallel_config
    return {
        "method": speculative.method,
        "tokens": speculative.num_speculative_tokens,
        "per_batch_size": speculative.num_speculative_tokens_per_batch_size,
        "model": draft and _model(draft),
        "tensor_parallel": parallel and parallel.tensor_parallel_size,
        "kv_cache": speculative.kv_cache_dtype,
        "parallel_drafting": speculative.parallel_drafting,
        "lookup": [speculative.prompt_lookup_min, speculative.prompt_lookup_max],
        "drawn": [speculative.draft_sample_method, speculative.rejection_sample_method],
    }
