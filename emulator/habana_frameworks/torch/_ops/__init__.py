"""The operators ``torch.ops.hpu.*``; importing this package registers them."""

from . import block_softmax, fp8, moe, norm, rotary, sdpa, softmax, uint4

__all__ = ["block_softmax", "fp8", "moe", "norm", "rotary", "sdpa", "softmax", "uint4"]
