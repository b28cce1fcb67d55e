"""What the plugin sets in a configuration: it adjusts, and refuses nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.config import CompilationMode
from vllm.config.compilation import CUDAGraphMode
from vllm.logger import init_logger

from vllm_hpu.engine_plan import BLOCK_SIZE

if TYPE_CHECKING:
    from vllm.config import VllmConfig

logger = init_logger("vllm.plugins.vllm_hpu.rules")


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


def plain_late_interaction(config: VllmConfig) -> None:
    """Late-interaction scores are products of PyTorch; vLLM's fused form is a Triton kernel."""
    model = config.model_config
    if model is not None and model.pooler_config is not None:
        model.pooler_config.enable_flash_late_interaction = False


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
