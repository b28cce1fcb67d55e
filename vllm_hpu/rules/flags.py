"""Flags of vLLM that this platform does not obey."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm import envs
from vllm.logger import init_logger

from vllm_hpu.errors import ConfigurationError, UnsupportedFeatureError
from vllm_hpu.flags import FLAGS, Flag, Verdict, flag_option

if TYPE_CHECKING:
    from vllm.config import VllmConfig

logger = init_logger("vllm.plugins.vllm_hpu.rules")

_UNSUPPORTED = "is not supported on Gaudi by this version of vllm-hpu"
_FOREIGN_LOADERS = ("fastsafetensors", "instanttensor", "ipc_cache", "modelexpress")


def table_of_flags(config: VllmConfig) -> None:
    """Refuse flags that the table refuses, and name those that do nothing.

    Runs before vLLM derives values of its own, so that what differs from a default was chosen.
    """
    if _derived(config):
        return
    chosen: list[Flag] = [flag for flag in FLAGS.values() if flag.path and flag.chosen(config)]
    for flag in chosen:
        if flag.verdict is Verdict.REFUSED:
            raise UnsupportedFeatureError(
                f"{flag_option(flag.name)} {_UNSUPPORTED}", flag.why, flag.do
            )
    # A value that two flags set is named once.
    for flag in {flag.path: flag for flag in chosen}.values():
        logger.warning_once("%s has no effect on Gaudi: %s.", flag_option(flag.name), flag.why)


def _derived(config: VllmConfig) -> bool:
    """Whether the configuration was made from one that the rules have seen, as a drafter's is."""
    compilation = config.compilation_config
    # As engine.no_upstream_compilation leaves it; the drafter's configuration has the same object.
    return compilation.cudagraph_capture_sizes == [] and compilation.max_cudagraph_capture_size == 0


def second_model_runner(config: VllmConfig) -> None:
    """The plugin's runner is vLLM's second; what vLLM gives to its first would get the wrong one.

    vLLM decides in ``VllmConfig.use_v2_model_runner``.
    """
    from vllm_hpu.compat import model_runner_v2

    # A configuration may be made without vLLM's arguments, which ask the platform before.
    model_runner_v2.install()
    if config.use_v2_model_runner:
        return
    reasons = config._get_v2_model_runner_unsupported_features()
    if envs.VLLM_USE_V2_MODEL_RUNNER is False:
        raise ConfigurationError(
            "VLLM_USE_V2_MODEL_RUNNER=0 does not work on Gaudi",
            "vllm-hpu builds on vLLM's second model runner and has no other",
            "Unset VLLM_USE_V2_MODEL_RUNNER",
        )
    raise UnsupportedFeatureError(
        f"{', '.join(reasons) or 'This configuration'} {_UNSUPPORTED}",
        "vLLM runs it with its first model runner, and vllm-hpu builds on the second",
        "Remove the flag that asks for it; docs/flags.md lists what works",
    )


def supported_attention_backend(config: VllmConfig) -> None:
    """Layers get the plugin's backend whatever the flag says."""
    from vllm_hpu.attention.registry import BACKENDS

    backend = config.attention_config.backend
    if backend is not None and backend.name not in BACKENDS:
        raise UnsupportedFeatureError(
            f"--attention-backend {backend.name} {_UNSUPPORTED}",
            f"Gaudi has {' and '.join(BACKENDS)}, chosen by the model",
            "Remove the flag",
        )


def supported_load_format(config: VllmConfig) -> None:
    """Some loaders copy weights to the device by means that only CUDA has."""
    chosen = str(config.load_config.load_format)
    if chosen in _FOREIGN_LOADERS:
        raise UnsupportedFeatureError(
            f"--load-format {chosen} {_UNSUPPORTED}",
            "It copies weights to the device with CUDA's own means",
            "Use --load-format auto",
        )


def supported_profiler(config: VllmConfig) -> None:
    """PyTorch's profiler records the card; the others record NVIDIA's and AMD's kernels."""
    profiler = config.profiler_config.profiler
    if profiler not in (None, "torch"):
        raise UnsupportedFeatureError(
            f'--profiler-config with "profiler": "{profiler}" {_UNSUPPORTED}',
            "It records the kernels of other devices",
            'Use "profiler": "torch"',
        )
