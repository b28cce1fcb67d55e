"""Flags of which some values are refused, each by a rule of its own or by vLLM itself."""

from vllm_hpu.flags.flag import Flag, Verdict


def _in_part(name: str, why: str, do: str) -> Flag:
    return Flag(name, Verdict.IN_PART, why, do)


IN_PART = [
    _in_part("dtype", "float64 is refused", "Use bfloat16, float16 or float32"),
    _in_part(
        "kv_cache_dtype",
        "the cache has the model's own type; every other is refused",
        "Use --kv-cache-dtype auto",
    ),
    _in_part("quantization", "quantised models are refused", "Use an unquantised checkpoint"),
    _in_part("block_size", "only multiples of 16 work", "Use --block-size 128, the default"),
    _in_part(
        "load_format",
        "fastsafetensors, instanttensor, ipc_cache and modelexpress copy with CUDA's own means",
        "Use --load-format auto",
    ),
    _in_part(
        "attention_backend",
        "other backends than HPU_ATTN and HPU_MLA have kernels for other devices only",
        "Remove the flag",
    ),
    _in_part(
        "attention_config.backend",
        "the same as --attention-backend",
        "Remove the flag",
    ),
    _in_part(
        "attention_config.use_non_causal",
        "set by drafters that attend both ways, which are refused",
        "Remove the flag",
    ),
    _in_part(
        "mm_processor_device",
        "another device than the CPU is for separate encoders, which are refused",
        "Use auto or cpu",
    ),
    _in_part("worker_cls", "a worker must derive from the plugin's HpuWorker", "Remove the flag"),
    _in_part(
        "enable_lora",
        "adapters of mixture-of-experts layers are refused",
        "Merge the adapter into the weights",
    ),
    _in_part(
        "speculative_config.method",
        "ngram, draft_model, eagle, eagle3 and mtp work; the others are refused",
        "Use one of these",
    ),
    _in_part(
        "speculative_config.max_model_len",
        "a drafter must reach as far as --max-model-len: vLLM drafts at every position",
        "Lower --max-model-len",
    ),
    _in_part(
        "speculative_config.draft_tensor_parallel_size",
        "a drafter spreads over as many cards as the model",
        "Leave it out",
    ),
    _in_part(
        "speculative_config.quantization",
        "quantised drafters are refused as quantised models are",
        "Use an unquantised checkpoint",
    ),
    _in_part(
        "speculative_config.kv_cache_dtype",
        "the cache has the model's own type",
        "Leave it out",
    ),
    _in_part(
        "speculative_config.use_heterogeneous_vocab",
        "needs vLLM's first model runner, which is not on Gaudi",
        "Use a drafter with the model's own vocabulary",
    ),
    _in_part(
        "speculative_config.parallel_drafting",
        "needs vLLM's first model runner, which is not on Gaudi",
        "Leave it out",
    ),
    _in_part(
        "profiler_config.profiler",
        "cuda and proton record NVIDIA's and AMD's kernels",
        'Use "torch"',
    ),
    _in_part(
        "profiler_config.torch_profiler_activities",
        "CUDA, XPU and PrivateUse1 are other devices",
        'Leave it out, or use ["CPU"]',
    ),
]
