"""Which of PyTorch's operators a card's graphs do not have, and what they have instead.

Names: python_packages/habana_frameworks/torch/dynamo/compile_backend/decomposition.py of
HabanaAI/gaudi-pytorch-bridge; most are lowered with PyTorch's own rules.
"""

import itertools
from collections.abc import Sequence

import torch
from torch._decomp import get_decompositions

__all__ = ["decompositions"]

_LOWERED = """
    _log_softmax.out _native_batch_norm_legit _prelu_kernel _prelu_kernel_backward _reshape_alias
    _safe_softmax addcdiv addcdiv_ addcmul addcmul_ affine_grid_generator all aminmax arange
    arange.start baddbmm binary_cross_entropy_backward binary_cross_entropy_with_logits block_diag
    celu clamp_max clamp_min col2im cudnn_batch_norm cudnn_batch_norm_backward detach diag_embed dot
    elu elu_backward empty_like eye eye.m fill.Scalar fill.Tensor frac glu_backward hardswish
    hardswish_ hardswish_backward hardtanh_ hardtanh_backward im2col index_add_ isneginf isposinf
    leaky_relu_ lerp.Scalar linspace log_sigmoid_backward log_sigmoid_forward logaddexp logsumexp
    mish mse_loss mse_loss_backward mv mvlgamma native_batch_norm native_dropout_backward new_empty
    new_empty_strided new_full new_ones new_zeros norm.Scalar norm.ScalarOpt_dim
    norm.ScalarOpt_dim_dtype norm.ScalarOpt_dtype ones ones_like rot90 rsub.Tensor select_backward
    sgn sigmoid_backward silu_ silu_backward slice_backward soft_margin_loss
    soft_margin_loss_backward softplus softplus_backward special_log_ndtr special_xlog1py
    special_xlog1py.other_scalar special_xlog1py.self_scalar stack std_mean t tanh_backward
    unbind.int unfold unfold_backward upsample_bilinear2d upsample_bilinear2d.vec vdot xlogy.Tensor
    xlogy.Scalar_Other xlogy.Scalar_Self zero zero_ zeros zeros_like
"""


def _operator(name: str) -> torch._ops.OpOverload:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _slices(x: torch.Tensor, sizes: Sequence[int], dim: int = 0) -> list[torch.Tensor]:
    ends = list(itertools.accumulate(sizes))
    return [
        torch.ops.aten.slice.Tensor(x, dim, end - size, end)
        for size, end in zip(sizes, ends, strict=True)
    ]


def _equal_slices(x: torch.Tensor, size: int, dim: int = 0) -> list[torch.Tensor]:
    whole, rest = divmod(x.shape[dim], size)
    return _slices(x, [size] * whole + [rest] * bool(rest), dim)


def decompositions() -> dict:
    """Rules for AOTAutograd, by operator."""
    aten = torch.ops.aten
    rules = get_decompositions([_operator(name) for name in _LOWERED.split()])
    rules[aten.randint.default] = lambda high, size, **how: aten.randint.low(0, high, size, **how)
    rules[aten._euclidean_dist.default] = lambda x, y: aten._cdist_forward(x, y, 2.0, None)
    rules[aten.split.Tensor] = _equal_slices
    rules[aten.split_with_sizes.default] = _slices
    return rules
