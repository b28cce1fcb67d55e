"""RMSNorm on the card's fused kernel, through vLLM's IR operators.

In vLLM 0.32 ``RMSNorm`` and ``GemmaRMSNorm`` both end in ``vllm.ir.ops.rms_norm`` and
``fused_add_rms_norm`` (``model_executor/layers/layernorm.py``), and so do the models that call
these operators themselves. One implementation there therefore serves every norm; an out-of-tree
class per layer would miss the direct callers.

``IR_PRIORITY`` is what ``Platform.get_default_ir_op_priority`` has to return for these operators.
"""

import torch
from vllm import ir

from vllm_hpu.device import ops as device_ops

__all__ = ["IR_PRIORITY", "PROVIDER", "register"]

PROVIDER = "hpu"

IR_PRIORITY: dict[str, list[str]] = {
    "rms_norm": [PROVIDER, "native"],
    "fused_add_rms_norm": [PROVIDER, "native"],
}


def _fused_kernel_fits(weight: torch.Tensor | None, variance_size: int | None) -> bool:
    """The card's kernel always scales by a weight and always averages the whole last axis."""
    return weight is not None and variance_size is None


def _normalise(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Normalise ``x`` [..., hidden] by its root mean square and scale by ``weight`` [hidden].

    The card's kernel wants one dtype for both. Gemma's weight ``1 + w`` is float32 while the
    activations are bfloat16; then the product is taken in float32, as vLLM's own form does.
    """
    if weight.dtype == x.dtype:
        return device_ops.rms_norm(x, weight, epsilon)
    return device_ops.rms_norm(x.to(weight.dtype), weight, epsilon).to(x.dtype)


def _rms_norm_fits(
    x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    return _fused_kernel_fits(weight, variance_size)


def _fused_add_rms_norm_fits(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> bool:
    return _fused_kernel_fits(weight, variance_size)


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> torch.Tensor:
    """``x / sqrt(mean(x²) + epsilon) · weight`` over the last axis, in the dtype of ``x``."""
    assert weight is not None  # _rms_norm_fits has sent every other call to the native form
    return _normalise(x, weight, epsilon)


def fused_add_rms_norm(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the residual, then normalise: returns (normalised sum, sum), both in ``x``'s dtype.

    The sum is rounded to that dtype before it is normalised, as Hugging Face's models and vLLM's
    CUDA kernel do: what the next layer adds to is what this layer normalised.
    """
    assert weight is not None  # as above
    total = x + x_residual
    return _normalise(total, weight, epsilon), total


def register() -> None:
    """Register both implementations under the provider name ``hpu``; harmless when repeated."""
    if PROVIDER in ir.ops.rms_norm.impls:
        return
    ir.ops.rms_norm.register_impl(PROVIDER, supports_args=_rms_norm_fits)(rms_norm)
    ir.ops.fused_add_rms_norm.register_impl(PROVIDER, supports_args=_fused_add_rms_norm_fits)(
        fused_add_rms_norm
    )
