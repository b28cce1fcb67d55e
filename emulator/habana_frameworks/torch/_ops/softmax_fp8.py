"""``hpu::softmax_fp8``: softmax between two scales.

Schemas: scripts/hpu_op.yaml of HabanaAI/gaudi-pytorch-bridge.
"""

from typing import TypeAlias

import torch

from .fp8_range import saturate
from .library import operator

__all__ = ["softmax_fp8"]

Scale: TypeAlias = torch.Tensor | float | None


def _fake(
    input, dim, input_scale=None, output_scale=None, inv_attn_heads=None, fused_add=None
) -> torch.Tensor:
    dtype = torch.bfloat16 if input_scale is None else torch.float8_e4m3fn
    return torch.empty_like(input, dtype=dtype)


@operator(
    "softmax_fp8.Scalar(Tensor input, int dim, float input_scale, float output_scale,"
    " float inv_attn_heads, Tensor? fused_add=None) -> Tensor",
    _fake,
)
@operator(
    "softmax_fp8.Scalar_scales(Tensor input, int dim, float input_scale, float output_scale,"
    " Tensor? inv_attn_heads=None, Tensor? fused_add=None) -> Tensor",
    _fake,
)
@operator(
    "softmax_fp8(Tensor input, int dim, Tensor? input_scale=None, Tensor? output_scale=None,"
    " Tensor? inv_attn_heads=None, Tensor? fused_add=None) -> Tensor",
    _fake,
)
def softmax_fp8(
    input: torch.Tensor,
    dim: int,
    input_scale: Scale = None,
    output_scale: Scale = None,
    inv_attn_heads: Scale = None,
    fused_add: torch.Tensor | None = None,
) -> torch.Tensor:
    """``softmax(input * inv_attn_heads * input_scale + fused_add) * output_scale``.

    Args:
        input: bfloat16 or FP8.
        dim: must be the last one.
        input_scale, output_scale: both or none.
        fused_add: broadcastable to ``input``; with scales only.

    Returns:
        ``float8_e4m3fn`` with scales, bfloat16 without; computed in float32.
    """
    if dim not in (-1, input.dim() - 1):
        raise ValueError(f"softmax_fp8: only the last dimension is supported, got dim {dim}")
    if (input_scale is None) != (output_scale is None):
        raise ValueError("softmax_fp8: give both input_scale and output_scale, or none")
    if fused_add is not None and input_scale is None:
        raise ValueError("softmax_fp8: fused_add needs input_scale and output_scale")
    scores = input.to(torch.float32)
    for factor in (inv_attn_heads, input_scale):
        if factor is not None:
            scores = scores * factor
    if fused_add is not None:
        scores = scores + fused_add
    weights = torch.softmax(scores, dim=-1)
    if output_scale is None:
        return weights.to(torch.bfloat16)
    return saturate(weights * output_scale, torch.float8_e4m3fn)
