"""``hpu::conv2d_fp8``: convolution of FP8 images.

Schemas: scripts/hpu_op.yaml of HabanaAI/gaudi-pytorch-bridge.
"""

import torch

from .library import operator

__all__ = ["conv2d_fp8"]


def _fake(
    input,
    weight,
    bias=None,
    stride=(1, 1),
    padding=(0, 0),
    dilation=(1, 1),
    groups=1,
    out_dtype=None,
    scale_input=None,
    scale_weight=None,
):
    wide = torch.empty_like(input, dtype=torch.float32)
    filters = torch.empty_like(weight, dtype=torch.float32)
    out = torch.nn.functional.conv2d(wide, filters, None, stride, padding, dilation, groups)
    return out.to(out_dtype or torch.bfloat16)


_HEAD = (
    "Tensor input, Tensor weight, Tensor? bias=None, int[2] stride=1, int[2] padding=0,"
    " int[2] dilation=1, int groups=1, ScalarType? out_dtype=None"
)


@operator(
    f"conv2d_fp8.scalar({_HEAD}, float scale_input=1.0, float scale_weight=1.0) -> Tensor", _fake
)
@operator(
    f"conv2d_fp8({_HEAD}, Tensor? scale_input=None, Tensor? scale_weight=None) -> Tensor", _fake
)
def conv2d_fp8(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride=(1, 1),
    padding=(0, 0),
    dilation=(1, 1),
    groups: int = 1,
    out_dtype: torch.dtype | None = None,
    scale_input: torch.Tensor | float | None = None,
    scale_weight: torch.Tensor | float | None = None,
) -> torch.Tensor:
    """``conv2d(input, weight) * scale_input * scale_weight + bias``.

    Args:
        input: FP8 ``[batch, channels, height, width]``.
        weight: FP8 ``[filters, channels / groups, rows, columns]``.
        bias: ``[filters]``.
        out_dtype: default bfloat16.

    Returns:
        ``[batch, filters, height', width']``; products are summed in float32.
    """
    out = torch.nn.functional.conv2d(
        input.to(torch.float32),
        weight.to(torch.float32),
        None,
        stride,
        padding,
        dilation,
        groups,
    )
    for factor in (scale_input, scale_weight):
        if factor is not None:
            out = out * factor
    if bias is not None:
        out = out + bias[:, None, None]
    return out.to(out_dtype or torch.bfloat16)
