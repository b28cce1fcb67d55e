"""What decides how the graphs of an engine look: the same facts, the same graphs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
import vllm

import vllm_hpu
from vllm_hpu.device.info import device_info

if TYPE_CHECKING:
    from vllm_hpu.runner.model_runner import HpuModelRunner

# Where a model lies and what wrote its configuration changes no graph.
_IRRELEVANT = ("_name_or_path", "name_or_path", "transformers_version")


def graph_facts(runner: HpuModelRunner) -> dict[str, Any]:
    """The facts of ``runner``, as JSON can express them."""
    config = runner.vllm_config
    model = config.model_config.hf_config.to_dict()
    lora, speculative = config.lora_config, config.speculative_config
    device = device_info()
    return {
        "model": {name: value for name, value in model.items() if name not in _IRRELEVANT},
        "dtype": str(config.model_config.dtype),
        "quantization": config.model_config.quantization,
        "kv_cache": [config.cache_config.cache_dtype, runner.kv_cache_config.num_blocks],
        "limits": asdict(runner.plan.limits),
        "mode": runner.mode.mode.value,
        "tensor_parallel": config.parallel_config.tensor_parallel_size,
        "ranks": config.parallel_config.world_size,
        "lora": lora and [lora.max_loras, lora.max_lora_rank, str(lora.lora_dtype)],
        "speculation": speculative and [speculative.method, speculative.num_speculative_tokens],
        "software": [vllm_hpu.__version__, vllm.__version__, torch.__version__, device.software],
        "device": device.name,
    }
