"""The operators ``torch.ops.hpu.*``; importing this package registers them."""

from . import (
    block_softmax,
    conv_fp8,
    ctc,
    fast_math,
    fp8,
    fp8_reduce,
    gather,
    moe,
    norm,
    rotary,
    sdpa,
    sdpa_fp8,
    softmax,
    softmax_fp8,
    softmax_masked,
    uint4,
)

__all__ = [
    "block_softmax",
    "conv_fp8",
    "ctc",
    "fast_math",
    "fp8",
    "fp8_reduce",
    "gather",
    "moe",
    "norm",
    "rotary",
    "sdpa",
    "sdpa_fp8",
    "softmax",
    "softmax_fp8",
    "softmax_masked",
    "uint4",
]
