"""What vLLM asks of a platform, answered for Gaudi.

Hooks and their callers: ``vllm/platforms/interface.py`` of vLLM 0.32.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from vllm.platforms.interface import Platform, PlatformEnum

from vllm_hpu.errors import UnsupportedFeatureError

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.config.kernel import IrOpPriorityConfig
    from vllm.inputs import EngineInput
    from vllm.pooling_params import PoolingParams
    from vllm.sampling_params import SamplingParams
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.v1.attention.backends.mla.prefill.base import MLAPrefillBackend
    from vllm.v1.attention.backends.mla.prefill.selector import MLAPrefillSelectorConfig
    from vllm.v1.attention.backends.registry import AttentionBackendEnum
    from vllm.v1.attention.selector import AttentionSelectorConfig


class HpuPlatform(Platform):
    """Intel Gaudi 2 and 3 as an out-of-tree platform of vLLM."""

    _enum = PlatformEnum.OOT
    # Both must be a torch device type: vLLM builds torch.device(f"{device_name}:{index}").
    device_name: str = "hpu"
    device_type: str = "hpu"
    dispatch_key: str = "HPU"
    dist_backend: str = "hccl"
    device_control_env_var: str = "HABANA_VISIBLE_MODULES"
    ray_device_key: str = "HPU"
    ray_noset_device_env_vars: list[str] = ["RAY_EXPERIMENTAL_NOSET_HABANA_VISIBLE_MODULES"]
    # vLLM's small stand-alone helpers; compiling them costs a recipe each and saves nothing here.
    simple_compile_backend: str = "eager"
    # Nothing quantised yet; verify_quantization() refuses the rest by name.
    supported_quantization: list[str] = ["none"]

    @classmethod
    def log_warnings(cls) -> None:
        """vLLM calls this when its log is set up: the first moment to say what was detected."""
        from vllm_hpu.detect import report

        report()

    @property
    def supported_dtypes(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16, torch.float32]

    @classmethod
    def import_kernels(cls) -> None:
        """vLLM's compiled kernels are not built for Gaudi; the operators come from the bridge."""

    @classmethod
    def import_ir_kernels(cls) -> None:
        """Register the operators that replace vLLM's IR operators (RMSNorm)."""
        from vllm_hpu.ops import norm

        norm.register()

    @classmethod
    def get_default_ir_op_priority(cls, vllm_config: VllmConfig) -> IrOpPriorityConfig:
        from vllm.config.kernel import IrOpPriorityConfig

        from vllm_hpu.ops.norm import IR_PRIORITY

        return IrOpPriorityConfig.with_default(["native"], **IR_PRIORITY)

    @classmethod
    def register_triton_kernel_overrides(cls) -> None:
        from vllm_hpu import kernels

        kernels.register()

    @classmethod
    def pre_register_and_update(cls, parser: FlexibleArgumentParser | None = None) -> None:
        """Runs in the front end before the configuration is built, and before flags are parsed."""
        from vllm_hpu import compat

        compat.install()
        if parser is not None:
            from vllm_hpu.compat import clean_end
            from vllm_hpu.options import add_flags

            compat.install_in_front_end()
            add_flags(parser)
            clean_end.set_default(parser)

    @classmethod
    def apply_config_platform_defaults(cls, vllm_config: VllmConfig) -> None:
        from vllm_hpu.rules import apply_defaults

        apply_defaults(vllm_config)

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        from vllm_hpu.compat import clean_end
        from vllm_hpu.rules import apply_rules

        apply_rules(vllm_config)
        clean_end.install_in_server()

    @classmethod
    def validate_request(
        cls, processed_inputs: EngineInput, params: SamplingParams | PoolingParams
    ) -> None:
        """What a request says itself; ``compat/request_limits.py`` checks what follows from it."""
        from vllm_hpu.requests import check_params

        check_params(params)

    @classmethod
    def verify_quantization(cls, quant: str) -> None:
        raise UnsupportedFeatureError(
            f"{quant} quantization is not supported on Gaudi by this version of vllm-hpu. "
            f"Use an unquantised checkpoint, or remove --quantization."
        )

    @classmethod
    def get_attn_backend_cls(
        cls,
        selected_backend: AttentionBackendEnum | None,
        attn_selector_config: AttentionSelectorConfig,
        num_heads: int | None = None,
    ) -> str:
        from vllm_hpu.attention.registry import select

        return select(attn_selector_config)

    @classmethod
    def get_mla_prefill_backend_cls(
        cls, mla_selector_config: MLAPrefillSelectorConfig
    ) -> type[MLAPrefillBackend]:
        from vllm_hpu.attention.mla import HpuMLAPrefillBackend

        return HpuMLAPrefillBackend

    @classmethod
    def opaque_attention_op(cls) -> bool:
        # vLLM's operator carries the layer's name, so every layer would be compiled anew. Compile
        # mode has its own (attention/opaque.py); elsewhere the layer is called directly.
        return False

    @classmethod
    def use_custom_op_collectives(cls) -> bool:
        return True

    @classmethod
    def support_hybrid_kv_cache(cls) -> bool:
        return True

    @classmethod
    def check_runner_kv_caches_multi_layer(cls) -> None:
        """Layers that share an index are fine: caches are bound by layer name."""

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        return "vllm_hpu.distributed.communicator.HpuCommunicator"

    @classmethod
    def get_punica_wrapper(cls) -> str:
        return "vllm_hpu.lora.punica.PunicaWrapperHPU"

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        # vLLM takes True for "the device can address host memory" and builds CUDA views of it.
        return False

    @classmethod
    def is_sleep_mode_available(cls) -> bool:
        return False

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return torch.hpu.get_device_name(device_id)

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        from vllm_hpu.device.memory import memory_info

        return memory_info(device_id).total_bytes

    @classmethod
    def get_current_memory_usage(cls, device: torch.types.Device | None = None) -> float:
        from vllm_hpu.device.memory import memory_info

        return float(memory_info(_index(device)).used_bytes)

    @classmethod
    def num_compute_units(cls, device_id: int = 0) -> int:
        # Tensor processor cores (facts: Gaudi 2 has 24, Gaudi 3 has 64).
        return 64 if "3" in cls.get_device_name(device_id) else 24

    @classmethod
    def set_device(cls, device: torch.device) -> None:
        torch.hpu.set_device(device)

    @classmethod
    def manual_seed_all(cls, seed: int) -> None:
        torch.hpu.manual_seed_all(seed)

    @classmethod
    def check_if_supports_dtype(cls, dtype: torch.dtype) -> None:
        if dtype not in (torch.bfloat16, torch.float16, torch.float32):
            raise UnsupportedFeatureError(
                f"Gaudi cannot run a model in {dtype}. Use --dtype bfloat16."
            )

    def graph_pool_handle(self) -> Any:
        """HPU graphs take their memory from the device's own pool."""
        return None


def _index(device: torch.types.Device | None) -> int | None:
    if device is None or isinstance(device, int):
        return device
    return torch.device(device).index
