"""Names of the plugin's attention backends in vLLM's registry, and which layer gets which."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.v1.attention.selector import AttentionSelectorConfig

__all__ = ["BACKENDS", "register", "select"]

BACKENDS = {
    "HPU_ATTN": "vllm_hpu.attention.backend.HpuAttentionBackend",
    "HPU_MLA": "vllm_hpu.attention.mla.HpuMLABackend",
}


def register() -> None:
    """Add the backends to vLLM's enumeration. Layers look their backend up there by its name.

    Idempotent; call it in every process before a layer is built or ``--attention-backend`` is read.
    """
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    for name, path in BACKENDS.items():
        if name not in AttentionBackendEnum.__members__:
            AttentionBackendEnum.register(name, path)


def select(config: "AttentionSelectorConfig") -> str:
    """The path of the backend for a layer.

    Raises:
        ValueError: the layer asks for something that no backend here has.
    """
    from vllm.platforms.interface import DeviceCapability
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    register()
    name = "HPU_MLA" if config.use_mla else "HPU_ATTN"
    backend = AttentionBackendEnum[name].get_class()
    # A compute capability is NVIDIA's; no backend here reads it.
    reasons = backend.validate_configuration(
        device_capability=DeviceCapability(0, 0), **config._asdict()
    )
    if reasons:
        raise ValueError(
            f"attention on HPU cannot serve this model as configured: {'; '.join(reasons)}. "
            f"The layer asked for {config!r}"
        )
    return BACKENDS[name]
