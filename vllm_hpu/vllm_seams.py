"""Every name of vLLM that the plugin replaces, with the signature it expects.

A new vLLM that changed one of them fails at start with that name instead of somewhere later.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

SUPPORTED_VLLM = ">=0.32,<0.33"


class Seam(NamedTuple):
    """A replaced or overridden name: ``module:qualified.name`` and its parameters."""

    target: str
    parameters: tuple[str, ...]


RUNNER = "vllm.v1.worker.gpu.model_runner:"
SEAMS: tuple[Seam, ...] = (
    Seam(RUNNER + "GPUModelRunner.__init__", ("self", "vllm_config", "device")),
    Seam(
        RUNNER + "GPUModelRunner.gather_batch_req_state",
        ("self", "scheduler_output", "dummy_run"),
    ),
    Seam(
        RUNNER + "GPUModelRunner.prepare_inputs",
        ("self", "scheduler_output", "batch_req_state", "batch_desc", "num_active_loras"),
    ),
    Seam(RUNNER + "GPUModelRunner.prepare_attn", ("self", "input_batch")),
    Seam(RUNNER + "GPUModelRunner.add_requests", ("self", "scheduler_output")),
    Seam(
        RUNNER + "GPUModelRunner.sample",
        ("self", "hidden_states", "input_batch", "grammar_output"),
    ),
    Seam(
        RUNNER + "GPUModelRunner.postprocess_sampled",
        (
            "self",
            "idx_mapping",
            "sampled_tokens",
            "num_sampled",
            "num_rejected",
            "query_start_loc",
        ),
    ),
    Seam(RUNNER + "GPUModelRunner.sample_tokens", ("self", "grammar_output")),
    Seam(RUNNER + "GPUModelRunner.pool", ("self",)),
    Seam(RUNNER + "GPUModelRunner._remove_request", ("self", "req_id")),
    Seam(
        RUNNER + "GPUModelRunner.initialize_kv_cache",
        ("self", "kv_cache_config", "is_profiling", "kv_cache_allocation_context"),
    ),
    Seam(
        RUNNER + "ModelCudaGraphManager.__init__",
        (
            "self",
            "vllm_config",
            "device",
            "cudagraph_mode",
            "decode_query_len",
            "lora_capture_cases",
            "varlen_decode",
            "ubatch_runner",
        ),
    ),
    Seam(
        RUNNER + "ModelCudaGraphManager.dispatch",
        (
            "self",
            "num_reqs",
            "num_tokens",
            "uniform_token_count",
            "num_active_loras",
            "max_query_len",
            "num_ubatches",
        ),
    ),
    Seam(RUNNER + "ModelCudaGraphManager.run_fullgraph", ("self", "desc")),
    Seam(
        "vllm.v1.worker.gpu.model_states.default:DefaultModelState.prepare_attn",
        (
            "self",
            "input_batch",
            "cudagraph_mode",
            "block_tables",
            "slot_mappings",
            "attn_groups",
            "kv_cache_config",
            "for_capture",
            "ubatch_idx",
            "model_specific_attn_metadata",
        ),
    ),
    Seam(
        "vllm.model_executor.models.utils:_merge_multimodal_embeddings",
        ("inputs_embeds", "multimodal_embeddings", "is_multimodal"),
    ),
    Seam("vllm.v1.worker.gpu_worker:Worker.init_device", ("self",)),
    Seam("vllm.v1.worker.gpu_worker:Worker.compile_or_warm_up_model", ("self",)),
    Seam("vllm.v1.worker.gpu_worker:Worker.execute_model", ("self", "scheduler_output")),
    Seam("vllm.v1.worker.gpu_worker:Worker.sample_tokens", ("self", "grammar_output")),
    Seam("vllm.v1.worker.gpu_worker:Worker._make_model_runner", ("self",)),
    Seam("vllm.v1.worker.gpu_worker:Worker._maybe_get_memory_pool_context", ("self", "tag")),
)


# In the engine core and its callers, which are other processes than the workers.
ENGINE_SEAMS: tuple[Seam, ...] = (
    Seam("vllm.v1.engine.core:EngineCore._initialize_kv_caches", ("self", "vllm_config")),
    Seam("vllm.v1.core.sched.scheduler:Scheduler.schedule", ("self", "throttle_prefills")),
    Seam(
        "vllm.v1.core.kv_cache_manager:KVCacheManager.allocate_slots",
        (
            "self",
            "request",
            "num_new_tokens",
            "num_new_computed_tokens",
            "new_computed_blocks",
            "num_lookahead_tokens",
            "num_external_computed_tokens",
            "delay_cache_blocks",
            "num_encoder_tokens",
            "full_sequence_must_fit",
            "reserved_blocks",
            "has_scheduled_reqs",
            "skip_zeroing_group_ids",
        ),
    ),
    Seam(
        "vllm.v1.core.sched.scheduler:Scheduler.update_from_output",
        ("self", "scheduler_output", "model_runner_output"),
    ),
    Seam(
        "vllm.v1.core.sched.scheduler:Scheduler.finish_requests",
        ("self", "request_ids", "finished_status"),
    ),
    Seam("vllm.v1.structured_output:StructuredOutputManager.grammar_init", ("self", "request")),
    Seam("vllm.v1.structured_output:StructuredOutputManager._create_grammar", ("self", "request")),
    Seam("vllm.outputs:RequestOutput.add", ("self", "next_output", "aggregate")),
    Seam(
        "vllm.v1.engine.input_processor:InputProcessor.process_inputs",
        (
            "self",
            "request_id",
            "prompt",
            "params",
            "supported_tasks",
            "arrival_time",
            "lora_request",
            "tokenization_kwargs",
            "trace_headers",
            "priority",
            "data_parallel_rank",
            "resumable",
            "session_id",
            "kv_hints",
        ),
    ),
    Seam("vllm.v1.core.kv_cache_utils:_gen_lora_extra_hash_keys", ("request",)),
    Seam("vllm.v1.engine.core:EngineCore.add_lora", ("self", "lora_request")),
    Seam("vllm.v1.engine.core:EngineCore.remove_lora", ("self", "lora_id")),
    Seam("vllm.v1.engine.core:EngineCore.add_request", ("self", "request", "request_wave")),
    Seam(
        "vllm.entrypoints.openai.models.serving:OpenAIServingModels.load_lora_adapter",
        ("self", "request", "base_model_name"),
    ),
    Seam("vllm.v1.engine.core:EngineCoreProc._initialize_kv_caches", ("self", "vllm_config")),
    Seam("vllm.v1.engine.core:EngineCoreProc._process_input_queue", ("self",)),
    Seam("vllm.v1.engine.async_llm:load_stat_logger_plugin_factories", ()),
    Seam(
        "vllm.v1.engine.llm_engine:LLMEngine.__init__",
        (
            "self",
            "vllm_config",
            "executor_class",
            "log_stats",
            "aggregate_engine_logging",
            "usage_context",
            "stat_loggers",
            "mm_registry",
            "multiprocess_mode",
        ),
    ),
)

# In the engine core, for calls that ask for what workers cannot do.
SLEEP_SEAMS: tuple[Seam, ...] = (
    Seam("vllm.v1.engine.core:EngineCore.sleep", ("self", "level", "mode")),
    Seam("vllm.v1.engine.core:EngineCore.release_kv_cache_memory", ("self",)),
)

# Where arguments are parsed.
ARGUMENT_SEAMS: tuple[Seam, ...] = (
    Seam("vllm.engine.arg_utils:EngineArgs.from_cli_args", ("args",)),
)

# How a server ends: in the process that holds the engine's client, and in the API server.
SHUTDOWN_SEAMS: tuple[Seam, ...] = (
    Seam("vllm.v1.engine.async_llm:AsyncLLM.shutdown", ("self", "timeout")),
    Seam("vllm.v1.engine.core_client:BackgroundResources.__call__", ("self",)),
)
LIVENESS_SEAMS: tuple[Seam, ...] = (
    Seam(
        "vllm.v1.engine.async_llm:AsyncLLM.__init__",
        (
            "self",
            "vllm_config",
            "executor_class",
            "log_stats",
            "usage_context",
            "mm_registry",
            "log_requests",
            "start_engine_loop",
            "stat_loggers",
            "aggregate_engine_logging",
            "client_addresses",
            "client_count",
            "client_index",
            "profiler",
        ),
    ),
    Seam("vllm.v1.engine.core:EngineCoreProc.run_busy_loop", ("self",)),
    Seam("vllm.v1.engine.core:EngineCoreProc._process_engine_step", ("self",)),
    Seam(
        "vllm.v1.engine.core:EngineCoreProc._handle_client_request",
        ("self", "request_type", "request"),
    ),
    Seam("vllm.v1.engine.output_processor:OutputProcessor.propagate_error", ("self", "e")),
)
SERVER_SEAMS: tuple[Seam, ...] = (
    Seam(
        "vllm.entrypoints.launchers.api_server.entry:serve_http",
        ("app", "sock", "enable_ssl_refresh", "peer_loads", "uvicorn_kwargs"),
    ),
)


def resolve(target: str) -> Any:
    """The object behind ``module:qualified.name``."""
    module, _, qualified = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualified.split("."):
        found = getattr(found, part)
    return found


def mismatches(seams: tuple[Seam, ...] = SEAMS) -> list[str]:
    """One line for every seam that is missing or has other parameters."""
    lines = []
    for seam in seams:
        try:
            found = tuple(inspect.signature(resolve(seam.target)).parameters)
        except (ImportError, AttributeError) as error:
            lines.append(f"{seam.target}: {error}")
            continue
        if found != seam.parameters:
            lines.append(f"{seam.target}: expected {seam.parameters}, found {found}")
    return lines


def check(seams: tuple[Seam, ...] = SEAMS) -> None:
    """Raise when this vLLM is not the one the plugin was written for."""
    lines = mismatches(seams)
    if lines:
        import vllm

        raise ImportError(
            f"vllm-hpu supports vLLM {SUPPORTED_VLLM}; vLLM {vllm.__version__} differs in what the "
            f"plugin builds on. Install a supported vLLM or a newer vllm-hpu. Differences:\n  "
            + "\n  ".join(lines)
        )


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Replace a module's global for the duration of a call."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)
