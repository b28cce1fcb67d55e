"""Flags with no Gaudi implementation: any value but the default ends the start."""

from typing import Any

from vllm_hpu.flags.flag import Flag, Verdict

_REMOVE = "Remove the flag"
_SPREAD = "Use --tensor-parallel-size to spread a model over cards"


def _refused(
    path: str, why: str, do: str = _REMOVE, *, name: str = "", plain: tuple[Any, ...] = ()
) -> Flag:
    """The flag that sets the value at ``path``; its last word unless ``name`` says otherwise."""
    return Flag(name or path.rpartition(".")[2], Verdict.REFUSED, why, do, path, plain)


def _field(path: str, why: str, do: str = _REMOVE, plain: tuple[Any, ...] = ()) -> Flag:
    """A field of a flag that is an object."""
    return _refused(path, why, do, name=path, plain=plain)


_ALL_TO_ALL = "Experts are spread over cards within their matrices only"
_MEMORY = "Weights stay on the card"
_SLEEP = "It needs an allocator that can give back memory and keep its addresses"

REFUSED = [
    _refused("parallel_config.pipeline_parallel_size", "Stages are not on Gaudi yet", _SPREAD),
    _refused("parallel_config.data_parallel_size", "Run one server per replica", _SPREAD),
    _refused("parallel_config.prefill_context_parallel_size", "It needs collectives", _SPREAD),
    _refused("parallel_config.decode_context_parallel_size", "It needs collectives", _SPREAD),
    _refused("parallel_config.enable_expert_parallel", _ALL_TO_ALL, _SPREAD),
    _refused("parallel_config.enable_elastic_ep", _ALL_TO_ALL, _SPREAD),
    _refused("parallel_config.enable_eplb", _ALL_TO_ALL, _SPREAD),
    _refused("parallel_config.enable_hc_sp", "Its layers' kernels are NVIDIA's", _SPREAD),
    _refused("parallel_config.enable_dbo", "A card runs one step at a time"),
    _refused("parallel_config.ubatch_size", "A card runs one step at a time", plain=(0, 1)),
    _refused(
        "parallel_config.enable_batch_sharded_sampling",
        "Its kernels have no Gaudi form, and sampling is a single launch here",
        plain=(False,),
    ),
    _refused(
        "parallel_config.enable_fault_tolerance", "It recovers from data-parallel ranks that die"
    ),
    _refused(
        "parallel_config.assigned_physical_gpu_ids",
        "The plugin's workers do not read it",
        "Choose cards with HABANA_VISIBLE_MODULES",
        name="device_ids",
    ),
    _refused("parallel_config.ray_workers_use_nsight", "The profiler is NVIDIA's"),
    _refused("model_config.enable_sleep_mode", _SLEEP),
    _refused("model_config.enable_cumem_allocator", _SLEEP),
    _refused("model_config.enable_nccl_comm_suspend", _SLEEP),
    _refused("model_config.enable_prompt_embeds", "Prompts are tokens"),
    _refused("model_config.enable_trace_replay", "Its kernel has no Gaudi form"),
    _refused("model_config.return_sampling_mask", "Its kernel has no Gaudi form"),
    _refused(
        "model_config.quantization_config",
        "Weights are not quantised while they are loaded",
        "Use an unquantised checkpoint",
    ),
    _refused(
        "aux_output_config.enable_return_routed_experts",
        "The routing stays in the expert kernel",
    ),
    _refused(
        "aux_output_config",
        "Auxiliary outputs leave the forward by a connector that needs CUDA streams",
    ),
    _refused("watermark_config", "Its kernels have no Gaudi form"),
    _refused("diffusion_config", "Models that denoise a canvas are not on Gaudi yet"),
    _refused("engram_config", "Its tables are read from host memory by CUDA kernels"),
    _refused(
        "cache_config.kv_sharing_fast_prefill", "Every layer's cache is written by the forward"
    ),
    _refused("cache_config.kv_offloading_size", "The KV cache stays on the card"),
    _refused("kv_transfer_config", "The KV cache stays on the card"),
    _refused("ec_transfer_config", "Encoders run where the language model does"),
    _refused("weight_transfer_config", "It needs NCCL or CUDA's shared memory"),
    _refused("offload_config.uva.cpu_offload_gb", _MEMORY, _SPREAD),
    _refused("offload_config.prefetch.offload_group_size", _MEMORY, _SPREAD),
    _refused("offload_config.offload_backend", _MEMORY, _SPREAD),
    _refused(
        "model_config.multimodal_config.mm_encoder_only",
        "Encoders run where the language model does",
    ),
    _refused(
        "model_config.multimodal_config.mm_encoder_attn_dtype", "Its kernels are for other devices"
    ),
    _refused(
        "model_config.multimodal_config.mm_ipc_gpu_memory_gb",
        "The front end has no card and decodes media on the CPU",
    ),
    _refused("kernel_config.moe_backend", "Experts run on the card's own kernel"),
    _field("kernel_config.moe_backend", "Experts run on the card's own kernel"),
    _refused("kernel_config.linear_backend", "It names kernels of other devices"),
    _field("kernel_config.linear_backend", "It names kernels of other devices"),
    _field("kernel_config.linear_backend_per_quant", "It names kernels of other devices"),
    _refused("kernel_config.sparse_indexer_topk_backend", "It names kernels of other devices"),
    _field("kernel_config.sparse_indexer_topk_backend", "It names kernels of other devices"),
    _field("attention_config.backend_per_kind", "The plugin has one backend per kind of layer"),
    _field("attention_config.mla_prefill_backend", "The plugin has one backend per kind of layer"),
    _field("attention_config.hisparse_config", "Its kernels are NVIDIA's"),
    _field("compilation_config.cudagraph_mm_encoder", "An encoder has no graphs of its own"),
    _field(
        "profiler_config.capture_torch_profiler",
        "vLLM captures no graph here",
        "Profile requests instead",
    ),
    _field("speculative_config.moe_backend", "Experts run on the card's own kernel"),
    _field("speculative_config.attention_backend", "The plugin has one backend per kind of layer"),
    _field(
        "speculative_config.num_speculative_tokens_per_batch_size",
        "Planned steps have one number of draft tokens",
        "Use num_speculative_tokens alone",
    ),
    _field(
        "speculative_config.enable_adaptive_verification",
        "It trims drafts on the device, by kernels and graphs that Gaudi does not have",
    ),
]
