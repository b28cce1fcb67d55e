"""Every flag of vLLM's engine has an answer: the table against vLLM's list, and what it does."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from typing import Any

import pytest
import vllm.config
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs

from models.tiny import build
from vllm_hpu.flags import FLAGS, Flag, Verdict, flag_option
from vllm_hpu.flags.flag import default_of
from vllm_hpu.flags.in_part import IN_PART
from vllm_hpu.flags.meaningless import MEANINGLESS
from vllm_hpu.flags.obeyed import OBEYED
from vllm_hpu.flags.refused import REFUSED

# Flags whose value is an object with fields of different verdicts.
OBJECTS: dict[str, type] = {
    "compilation_config": vllm.config.CompilationConfig,
    "attention_config": vllm.config.AttentionConfig,
    "kernel_config": vllm.config.KernelConfig,
    "speculative_config": vllm.config.SpeculativeConfig,
    "profiler_config": vllm.config.ProfilerConfig,
}
NGRAM = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}
LIMITS = {"max_model_len": 256, "max_num_seqs": 4, "max_num_batched_tokens": 256}
# What a flag needs beside it.
BESIDE: dict[str, dict[str, Any]] = {
    "return_sampling_mask": {"logprobs_mode": "processed_logprobs"},
    "enable_expert_parallel": {"model": "mixtral"},
    "enable_eplb": {"model": "mixtral"},
    "enable_elastic_ep": {"model": "mixtral"},
    "enable_return_routed_experts": {"model": "mixtral"},
    "mm_encoder_only": {"model": "idefics3"},
    "mm_encoder_attn_dtype": {"model": "idefics3"},
    "mm_ipc_gpu_memory_gb": {"model": "idefics3"},
    "compilation_config.cudagraph_mm_encoder": {"model": "idefics3"},
    "specialize_active_lora": {"enable_lora": True},
}
BESIDE_FIELD: dict[str, dict[str, Any]] = {
    "speculative_config": NGRAM,
    "profiler_config": {"profiler": "torch", "torch_profiler_dir": "traces"},
}
# Values that a default does not tell.
VALUES: dict[str, Any] = {
    "enable_batch_sharded_sampling": True,
    "offload_backend": "uva",
    "moe_backend": "triton",
    "kernel_config.moe_backend": "triton",
    "speculative_config.moe_backend": "triton",
    "linear_backend": "cutlass",
    "kernel_config.linear_backend": "cutlass",
    "sparse_indexer_topk_backend": "persistent",
    "kernel_config.sparse_indexer_topk_backend": "persistent",
    "mm_encoder_attn_dtype": "fp8",
    "mm_ipc_gpu_memory_gb": 1.0,
    "engram_config": {},
    "weight_transfer_config": {"backend": "nccl"},
    "attention_config.hisparse_config": {},
    "attention_config.minimax_m3_msa_decode_backend": "cutlass",
    "attention_config.flash_attn_version": 2,
    "attention_config.use_trtllm_attention": True,
    "attention_config.indexer_kv_dtype": "fp8",
    "attention_config.flex_attn_block_m": 16,
    "attention_config.flex_attn_block_n": 16,
    "attention_config.flex_attn_q_block_size": 16,
    "attention_config.flex_attn_kv_block_size": 16,
    "enable_flashinfer_autotune": True,
    "kernel_config.enable_flashinfer_autotune": True,
    "jit_monitor_mode": "error",
    "max_parallel_loading_workers": 2,
    "cudagraph_capture_sizes": [1],
    "compilation_config.cudagraph_capture_sizes": [1],
    "max_cudagraph_capture_size": 8,
    "compilation_config.max_cudagraph_capture_size": 8,
    "compilation_config.debug_dump_path": "anywhere",
    "compilation_config.splitting_ops": ["some::operator"],
    "compilation_config.encoder_cudagraph_token_budgets": [64],
    "compilation_config.encoder_cudagraph_max_frames_per_batch": 1,
    "compilation_config.decoder_replay_cudagraph_capture_sizes": [1],
    "compilation_config.compile_sizes": [1],
    "compilation_config.compile_ranges_endpoints": [16],
    "compilation_config.use_inductor_graph_partition": True,
    "aux_output_config": {"max_bytes": 1 << 20},
    "quantization_config": {"linear": {"weight": "fp8_per_channel_static"}},
    "watermark_config": {"key": 42},
    "diffusion_config": {"canvas_length": 32},
    "kv_transfer_config": {"kv_connector": "ExampleConnector", "kv_role": "kv_both"},
    "ec_transfer_config": {"ec_connector": "ExampleConnector", "ec_role": "ec_both"},
    "attention_config.backend_per_kind": {"sliding_window": "FLASH_ATTN"},
    "attention_config.mla_prefill_backend": "FLASH_ATTN",
    "kernel_config.linear_backend_per_quant": {"mxfp4": "triton"},
    "speculative_config.attention_backend": "FLASH_ATTN",
    "speculative_config.num_speculative_tokens_per_batch_size": [[1, 4, 2]],
    "ubatch_size": 2,
    "data_parallel_size": 2,
    "device_ids": [0],
    "cpu_offload_gb": 1.0,
    "kv_offloading_size": 1.0,
    "optimization_level": 1,
    "compilation_config.cache_dir": "anywhere",
    "compilation_config.pass_config": {"fuse_norm_quant": True},
    "compilation_config.dynamic_shapes_config": {"type": "unbacked"},
    "compilation_config.compile_cache_save_format": "unpacked",
    "compilation_config.inductor_passes": {"post_grad": "textwrap.dedent"},
}


# vLLM refuses some before a platform is asked.
VLLM_REFUSES = {
    "enable_sleep_mode": "Sleep mode is not supported",
    "enable_cumem_allocator": "cumem allocator is not supported",
    "decode_context_parallel_size": "must be divisible by dcp_size",
    "enable_elastic_ep": "Elastic EP is only supported with enable_eplb",
    "enable_eplb": "Expert parallelism load balancing is only supported on CUDA",
    "enable_fault_tolerance": "Fault tolerance requires external load balancer mode",
    "ray_workers_use_nsight": "Unable to use nsight profiling",
    "engram_config": "EngramConfig requires a model with supported Engram embeddings",
}


@pytest.fixture(scope="module")
def configured(model_directory):
    """The engine's configuration for these flags; nothing is started."""

    def config(name: str = "llama", **flags: Any) -> Any:
        flags = LIMITS | flags
        return EngineArgs(model=str(build(name, model_directory)), **flags).create_engine_config()

    return config


def names_of_vllm() -> set[str]:
    names = {field.name for field in dataclasses.fields(AsyncEngineArgs)} - OBJECTS.keys()
    for flag, owner in OBJECTS.items():
        names |= {f"{flag}.{field.name}" for field in dataclasses.fields(owner) if field.init}
    return names


def test_every_flag_of_vllm_has_one_verdict():
    assert sorted(names_of_vllm() - FLAGS.keys()) == [], "flags of vLLM without a verdict"
    assert sorted(FLAGS.keys() - names_of_vllm()) == [], "flags that vLLM does not have"
    counts = Counter(flag.name for flag in (*OBEYED, *IN_PART, *MEANINGLESS, *REFUSED))
    assert [name for name, count in counts.items() if count > 1] == []
    for flag in FLAGS.values():
        assert (flag.verdict is Verdict.OBEYED) == (not flag.why), flag.name
        assert (flag.verdict is not Verdict.REFUSED) or (flag.path and flag.do), flag.name


def other_value(flag: Flag) -> Any:
    """A value that differs from the default."""
    if flag.name in VALUES:
        return VALUES[flag.name]
    first, _, field = flag.name.partition(".")
    default = default_of(OBJECTS[first] if field else AsyncEngineArgs, field or first)
    assert isinstance(default, int), f"VALUES needs a value for {flag.name}"
    return not default if isinstance(default, bool) else default + 1


def arguments_with(flag: Flag) -> dict[str, Any]:
    """Arguments of an engine with the flag set to another value than its default."""
    arguments = dict(BESIDE.get(flag.name, {}))
    value = other_value(flag)
    first, _, field = flag.name.partition(".")
    if field:
        arguments[first] = BESIDE_FIELD.get(first, {}) | {field: value}
    else:
        arguments[first] = value
    if "model" in arguments:
        arguments["name"] = arguments.pop("model")
    return arguments


@pytest.fixture
def reports(caplog, monkeypatch):
    """What the rule about flags has said so far."""
    # Said once per process otherwise.
    rules = logging.getLogger("vllm.plugins.vllm_hpu.rules")
    monkeypatch.setattr(rules, "warning_once", rules.warning, raising=False)
    caplog.set_level(logging.WARNING)

    def said() -> list[str]:
        messages = [record.getMessage() for record in caplog.records]
        return [message for message in messages if "has no effect on Gaudi" in message]

    return said


@pytest.mark.parametrize(
    "flags", [{}, {"enforce_eager": True}, {"speculative_config": NGRAM}, {"enable_lora": True}]
)
def test_nothing_is_refused_or_reported_without_a_flag(flags, configured, reports):
    configured(**flags)
    assert reports() == []


@pytest.mark.parametrize("flag", REFUSED, ids=lambda flag: flag.name)
def test_a_refused_flag_is_refused(flag, configured):
    with pytest.raises((ValueError, NotImplementedError)) as caught:
        configured(**arguments_with(flag))
    message = str(caught.value)
    if flag.name in VLLM_REFUSES:
        assert VLLM_REFUSES[flag.name] in message
        return
    # A value that two flags set is refused by the name of one.
    names = [flag_option(one.name) for one in REFUSED if one.path == flag.path]
    assert any(f"{name} is not supported on Gaudi" in message for name in names), message
    assert flag.do in message


@pytest.mark.parametrize(
    "flag", [flag for flag in MEANINGLESS if flag.path], ids=lambda flag: flag.name
)
def test_a_flag_without_effect_is_reported(flag, configured, reports):
    configured(**arguments_with(flag))
    assert len(reports()) == 1, reports()
    assert reports()[0].endswith(f"has no effect on Gaudi: {flag.why}.")
