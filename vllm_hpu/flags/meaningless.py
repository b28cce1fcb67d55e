"""Flags that change nothing on Gaudi; setting one with a path is reported once."""

from typing import Any

from vllm_hpu.flags.flag import Flag, Verdict

_OWN = "the plugin compiles and captures graphs itself; see docs/shapes.md"
_KERNEL = "chooses or tunes a kernel that another device has"
_STATE_SPACE = "is for state-space and linear-attention layers, whose models are refused"
_CONTEXT = "acts only with context parallelism, which is refused"
_DATA = "acts only with --data-parallel-size, which is refused"
_EXPERT = "acts only with --enable-expert-parallel, which is refused"
_OVERLAP = "acts only with --enable-dbo, which is refused"
_OFFLOAD = "acts only with weight offloading, which is refused"
_SLEEP = "acts only with --enable-sleep-mode, which is refused"
_SUFFIX = "acts only with the suffix method, which is refused"
_DSPARK = "acts only with the dspark method, which is refused"
_PROTON = "acts only with the proton profiler, which is refused"


def _nothing(why: str, names: str) -> list[Flag]:
    """Flags whose value is not looked at."""
    return [Flag(name, Verdict.MEANINGLESS, why) for name in names.split()]


def _reported(why: str, path: str, *names: str, plain: tuple[Any, ...] = ()) -> list[Flag]:
    """The flags that set the value at ``path``; its last word unless ``names`` says otherwise."""
    chosen = names or (path.rpartition(".")[2],)
    return [Flag(name, Verdict.MEANINGLESS, why, path=path, plain=plain) for name in chosen]


def _fields(why: str, config: str, names: str) -> list[Flag]:
    """Fields of a flag that is an object."""
    paths = [f"{config}.{name}" for name in names.split()]
    return [Flag(path, Verdict.MEANINGLESS, why, path=path) for path in paths]


MEANINGLESS = [
    *_reported(_OWN, "optimization_level"),
    *_fields(
        _OWN,
        "compilation_config",
        """debug_dump_path cache_dir compile_cache_save_format splitting_ops
        compile_mm_encoder encoder_cudagraph_token_budgets
        encoder_cudagraph_max_vision_items_per_batch encoder_cudagraph_max_frames_per_batch
        cudagraph_decoder_replay decoder_replay_cudagraph_capture_sizes
        decoder_replay_trim_threshold compile_sizes compile_ranges_endpoints
        inductor_passes cudagraph_num_of_warmups cudagraph_copy_inputs
        cudagraph_specialize_lora use_inductor_graph_partition pass_config
        dynamic_shapes_config""",
    ),
    *_nothing(
        _OWN,
        """compilation_config.mode compilation_config.cudagraph_mode
        compilation_config.inductor_compile_config compilation_config.backend
        compilation_config.ir_enable_torch_wrap compilation_config.fast_moe_cold_start""",
    ),
    *_reported(
        _OWN,
        "compilation_config.cudagraph_capture_sizes",
        "cudagraph_capture_sizes",
        "compilation_config.cudagraph_capture_sizes",
    ),
    *_reported(
        _OWN,
        "compilation_config.max_cudagraph_capture_size",
        "max_cudagraph_capture_size",
        "compilation_config.max_cudagraph_capture_size",
    ),
    *_fields(
        _KERNEL,
        "attention_config",
        """minimax_m3_msa_decode_backend flash_attn_version
        flash_attn_max_num_splits_for_cuda_graph tokenspeed_mla_min_split_kv
        tq_max_kv_splits_for_cuda_graph use_trtllm_attention disable_flashinfer_q_quantization
        use_prefill_query_quantization indexer_kv_dtype indexer_sparse_logits
        sparse_mla_force_mqa flex_attn_block_m flex_attn_block_n
        flex_attn_q_block_size flex_attn_kv_block_size""",
    ),
    *_nothing(_KERNEL, "attention_config.sparse_mla_prefill_workspace_factor"),
    *_reported(
        _KERNEL,
        "kernel_config.enable_flashinfer_autotune",
        "enable_flashinfer_autotune",
        "kernel_config.enable_flashinfer_autotune",
    ),
    *_fields(_KERNEL, "kernel_config", "enable_rocm_segmented_attn_autotune enable_cutedsl_warmup"),
    *_nothing(_KERNEL, "kernel_config.enable_jit_warmup"),
    *_nothing("there is one way to reduce over cards", "disable_custom_all_reduce"),
    *_nothing("vLLM has removed what it switched", "disable_cascade_attn"),
    *_reported(
        "vLLM loads all ranks at once",
        "parallel_config.max_parallel_loading_workers",
    ),
    *_reported("no model runner reads it", "cache_config.swa_bounded_replay"),
    *_reported(
        "vLLM's second model runner always pads drafts",
        "speculative_config.disable_padded_drafter_batch",
        "speculative_config.disable_padded_drafter_batch",
    ),
    *_nothing(
        "a drafter runs without graphs of its own",
        "speculative_config.enforce_eager",
    ),
    *_reported(
        "one graph serves steps with any adapters",
        "lora_config.specialize_active_lora",
    ),
    *_nothing(
        "is for adapters of mixture-of-experts layers, which are refused",
        "enable_mixed_moe_lora_format enable_moe_shared_loras",
    ),
    *_reported(
        "nothing here is compiled by Triton",
        "observability_config.jit_monitor_mode",
    ),
    *_reported(
        "nothing here is compiled by Triton",
        "observability_config.jit_monitor_verbose",
    ),
    *_reported(
        "the ranges are NVIDIA's; use --profiler-config",
        "observability_config.enable_layerwise_nvtx_tracing",
    ),
    *_nothing(
        _STATE_SPACE,
        """mamba_config mamba_backend mamba_ssu_algorithm enable_mamba_cache_stochastic_rounding
        mamba_cache_philox_rounds mamba_cache_dtype mamba_ssm_cache_dtype mamba_block_size
        mamba_cache_mode enable_mamba_shared_prefix_checkpoint replayssm_buffer_len use_replayssm
        gdn_prefill_backend kda_prefill_backend kda_decode_backend""",
    ),
    *_nothing(
        _CONTEXT,
        """dcp_comm_backend dcp_q_replicate dcp_kv_cache_interleave_size
        cp_kv_cache_interleave_size""",
    ),
    *_nothing(
        _DATA,
        """data_parallel_rank data_parallel_start_rank data_parallel_size_local
        data_parallel_address data_parallel_rpc_port data_parallel_hybrid_lb
        data_parallel_external_lb data_parallel_multi_port_external_lb data_parallel_backend
        dp_sync_interval disable_nccl_for_dp_synchronization fault_tolerance_config""",
    ),
    *_nothing(
        _EXPERT,
        """all2all_backend enable_ep_weight_filter expert_placement_strategy eplb_config
        elastic_ep_max_dp_size""",
    ),
    *_nothing(_OVERLAP, "dbo_decode_token_threshold dbo_prefill_token_threshold"),
    *_nothing(
        _OFFLOAD,
        """cpu_offload_params offload_num_in_group offload_prefetch_step offload_params
        kv_offloading_backend""",
    ),
    *_nothing(_SLEEP, "sleep_mode_offload_cudagraph sleep_preserve_parameter_names"),
    *_nothing(
        "acts only with a quantised KV cache, which is refused", "kv_cache_dtype_skip_layers"
    ),
    *_nothing(
        "acts only with an encoder in FP8, which is refused",
        """mm_encoder_fp8_scale_path mm_encoder_fp8_scale_save_path
        mm_encoder_fp8_scale_save_margin""",
    ),
    *_nothing(
        _SUFFIX,
        """speculative_config.suffix_decoding_max_tree_depth
        speculative_config.suffix_decoding_max_cached_requests
        speculative_config.suffix_decoding_max_spec_factor
        speculative_config.suffix_decoding_min_token_prob""",
    ),
    *_nothing(_DSPARK, "speculative_config.dspark_draft_topk"),
    *_nothing(
        "vLLM fills it in",
        """speculative_config.target_model_config speculative_config.target_parallel_config
        speculative_config.draft_model_config speculative_config.draft_parallel_config""",
    ),
    *_nothing(
        "vLLM refuses it; draft_tensor_parallel_size is meant",
        "speculative_config.tensor_parallel_size",
    ),
    *_nothing(
        _PROTON,
        """profiler_config.proton_profiler_dir profiler_config.proton_context
        profiler_config.proton_data profiler_config.proton_backend profiler_config.proton_mode
        profiler_config.proton_hook profiler_config.proton_output_format
        profiler_config.proton_graph_attribution""",
    ),
]
