"""What the plugin changes or refuses in vLLM's configuration: a list of small named rules.

A rule takes the ``VllmConfig`` and either adjusts it or raises; its docstring says why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vllm.config import CompilationMode
from vllm.config.compilation import CUDAGraphMode
from vllm.logger import init_logger

from vllm_hpu.engine_plan import BLOCK_SIZE
from vllm_hpu.errors import ConfigurationError, UnsupportedFeatureError

if TYPE_CHECKING:
    from vllm.config import VllmConfig

logger = init_logger("vllm.plugins.vllm_hpu.rules")

Rule = Callable[["VllmConfig"], None]


def report_settings(config: VllmConfig) -> None:
    """Bad variables and options are refused here; those that do less than they say are named."""
    from vllm_hpu.options import settings_of

    for message in settings_of(config).warnings():
        logger.warning(message)


def no_upstream_compilation(config: VllmConfig) -> None:
    """The plugin drives torch.compile and HPU graphs itself; vLLM's own machinery stays off."""
    compilation = config.compilation_config
    compilation.mode = CompilationMode.NONE
    compilation.cudagraph_mode = CUDAGraphMode.NONE
    compilation.cudagraph_capture_sizes = []
    compilation.max_cudagraph_capture_size = 0


def all_custom_ops(config: VllmConfig) -> None:
    """Layers take their Gaudi form unless the user chose otherwise."""
    if not config.compilation_config.custom_ops:
        config.compilation_config.custom_ops = ["all"]


def default_block_size(config: VllmConfig) -> None:
    """128 tokens per block, the size Gaudi's paged attention is made for."""
    cache = config.cache_config
    if cache is not None and not cache.user_specified_block_size:
        cache.block_size = BLOCK_SIZE


def legal_block_size(config: VllmConfig) -> None:
    """Paged attention reads whole rows of 16 tokens."""
    cache = config.cache_config
    if cache is not None and cache.block_size is not None and cache.block_size % 16:
        raise ConfigurationError(
            f"--block-size {cache.block_size} does not work on Gaudi",
            "It must be a multiple of 16",
            f"Use --block-size {BLOCK_SIZE}",
        )


def our_worker(config: VllmConfig) -> None:
    """Select the plugin's worker."""
    if config.parallel_config.worker_cls == "auto":
        config.parallel_config.worker_cls = "vllm_hpu.worker.HpuWorker"


def spawned_workers(config: VllmConfig) -> None:
    """A device that is open cannot be forked."""
    from vllm_hpu.settings import export

    export("VLLM_WORKER_MULTIPROC_METHOD", "spawn")


def lazy_collectives(config: VllmConfig) -> None:
    """HPU graphs hold collectives only if the bridge is told so before a worker imports it."""
    from vllm_hpu.graphs.mode import Mode, default_mode
    from vllm_hpu.settings import export

    if config.parallel_config.world_size > 1 and default_mode().mode is Mode.GRAPHS:
        export("PT_HPU_ENABLE_LAZY_COLLECTIVES", "true")


def enough_cards(config: VllmConfig) -> None:
    """One card per rank of this host; missing ones are found before workers are started."""
    from vllm_hpu.device.info import device_info

    parallel = config.parallel_config
    if parallel.distributed_executor_backend == "ray":
        return  # Ray places ranks on hosts that this process does not see
    info = device_info()
    if parallel.local_world_size > info.count:
        raise ConfigurationError(
            f"{parallel.local_world_size} cards are needed on this host and {info.count} "
            f"{'is' if info.count == 1 else 'are'} visible",
            "Every rank of --tensor-parallel-size has a card of its own",
            "Lower --tensor-parallel-size, or make more cards visible (HABANA_VISIBLE_MODULES)",
        )


def supported_kv_cache_dtype(config: VllmConfig) -> None:
    """The KV cache has the model's type for now."""
    cache = config.cache_config
    if cache is not None and cache.cache_dtype not in ("auto", "bfloat16", "float16", "float32"):
        raise UnsupportedFeatureError(
            f"--kv-cache-dtype {cache.cache_dtype} is not supported on Gaudi by this version of "
            f"vllm-hpu. Use --kv-cache-dtype auto."
        )


def supported_parallelism(config: VllmConfig) -> None:
    """Tensor parallelism works; what does not is refused before anything is loaded."""
    parallel = config.parallel_config
    refused = {
        "--data-parallel-size": parallel.data_parallel_size > 1,
        "--pipeline-parallel-size": parallel.pipeline_parallel_size > 1,
        "--enable-expert-parallel": parallel.enable_expert_parallel,
        "--decode-context-parallel-size": parallel.decode_context_parallel_size > 1,
        "--prefill-context-parallel-size": parallel.prefill_context_parallel_size > 1,
        "--enable-dbo": parallel.enable_dbo,
        "--enable-eplb": parallel.enable_eplb,
    }
    for flag, used in refused.items():
        if used:
            raise UnsupportedFeatureError(
                f"{flag} is not supported on Gaudi by this version of vllm-hpu. "
                f"Use --tensor-parallel-size to spread a model over cards."
            )


def supported_features(config: VllmConfig) -> None:
    """Refuse features with no Gaudi implementation yet, each by its flag."""
    model = config.model_config
    refused = {
        "--enable-sleep-mode": model is not None and model.enable_sleep_mode,
        "--kv-transfer-config": config.kv_transfer_config is not None,
        "--kv-offloading-size": bool(getattr(config.cache_config, "kv_offloading_size", None)),
        "--enable-prompt-embeds": model is not None and model.enable_prompt_embeds,
        "--enable-trace-replay": model is not None and model.enable_trace_replay,
        "--return-sampling-mask": model is not None and model.return_sampling_mask,
        "--watermark-config": config.watermark_config is not None,
        "--enable-return-routed-experts": config.aux_output_config.enabled,
    }
    for flag, used in refused.items():
        if used:
            raise UnsupportedFeatureError(
                f"{flag} is not supported on Gaudi by this version of vllm-hpu. Remove the flag; "
                f"docs/features.md lists what works."
            )


SUPPORTED_SPECULATION = ("ngram", "draft_model", "eagle", "eagle3", "mtp")


def supported_speculation(config: VllmConfig) -> None:
    """Only proposers that run on Gaudi."""
    speculative = config.speculative_config
    if speculative is not None and speculative.method not in SUPPORTED_SPECULATION:
        raise UnsupportedFeatureError(
            f"Speculative method {speculative.method!r} is not supported on Gaudi. "
            f"Use one of: {', '.join(SUPPORTED_SPECULATION)}."
        )


def supported_model(config: VllmConfig) -> None:
    """Refuse architectures whose layers have no Gaudi implementation yet."""
    model = config.model_config
    if model is None:
        return
    if model.is_encoder_decoder:
        raise UnsupportedFeatureError(
            f"{model.architecture} is an encoder-decoder model; cross attention is not supported "
            f"on Gaudi by this version of vllm-hpu. Use a decoder-only model."
        )
    if model.is_hybrid or model.is_attention_free:
        raise UnsupportedFeatureError(
            f"{model.architecture} has state-space (Mamba, linear attention) layers, which are "
            f"not supported on Gaudi by this version of vllm-hpu. Use an attention-only model."
        )


def published_metrics(config: VllmConfig) -> None:
    """Workers are other processes than the API server; it reads what they will count."""
    from vllm_hpu.metrics.publish import publish

    publish()


def recorded_traffic(config: VllmConfig) -> None:
    """The front end records traffic where a flag or an entry asks for it."""
    from vllm_hpu.compat import traffic_log
    from vllm_hpu.options import settings_of

    if settings_of(config).record_profile:
        traffic_log.add_recorder()


def legal_shape_plan(config: VllmConfig) -> None:
    """Contradictory bucket variables end here, in the front end, with their names."""
    from vllm_hpu.engine_plan import plan_for

    if config.model_config is not None and config.cache_config is not None:
        plan_for(config)


DEFAULTS: tuple[Rule, ...] = (no_upstream_compilation, all_custom_ops, default_block_size)
RULES: tuple[Rule, ...] = (
    report_settings,
    no_upstream_compilation,
    legal_block_size,
    our_worker,
    spawned_workers,
    lazy_collectives,
    supported_kv_cache_dtype,
    supported_parallelism,
    enough_cards,
    supported_features,
    supported_speculation,
    supported_model,
    legal_shape_plan,
    published_metrics,
    recorded_traffic,
)


def apply_defaults(config: VllmConfig) -> None:
    """Before vLLM derives further settings from the configuration."""
    for rule in DEFAULTS:
        rule(config)


def apply_rules(config: VllmConfig) -> None:
    """After vLLM has derived them; refusals happen here."""
    for rule in RULES:
        rule(config)
