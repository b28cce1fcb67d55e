"""Dropout of fused attention: which weights are kept.

The recompute kernel hands its seed to the backward pass, which must find the same mask again, so
the mask is a function of the seed and of a weight's position: one draw of the card's generator
makes the seed, and a mixing function of 32 bits (the finaliser of MurmurHash3, public domain)
makes a number per weight.
"""

import torch

__all__ = ["check_probability", "draw_seed", "keep_mask"]

_LARGEST = 0x7FFFFFFF


def check_probability(name: str, p: float) -> None:
    """Refuse what is no probability.

    Raises:
        ValueError: ``p`` is not in [0, 1].
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{name}: the dropout probability must be in [0, 1], got {p}")


def draw_seed(device: torch.device) -> torch.Tensor:
    """A seed for :func:`keep_mask`, int32 ``[1]``, from the card's generator."""
    return torch.randint(0, _LARGEST, (1,), dtype=torch.int32, device=device)


def _shifted(bits: torch.Tensor, by: int) -> torch.Tensor:
    """Logical shift to the right of int32."""
    return (bits >> by) & ((1 << (32 - by)) - 1)


def _int32(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def keep_mask(seed: torch.Tensor, shape: tuple[int, ...], p: float) -> torch.Tensor:
    """Which weights dropout keeps.

    Args:
        seed: int32 ``[1]``.
        shape: of the weights.
        p: probability that a weight is dropped.

    Returns:
        int8 of ``shape``: 1 kept, 0 dropped.
    """
    count = int(torch.Size(shape).numel())
    bits = torch.arange(count, dtype=torch.int32, device=seed.device) * _int32(0x9E3779B1) + seed
    for by, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ _shifted(bits, by)) * _int32(factor)
    bits = _shifted(bits ^ _shifted(bits, 16), 1)  # 0 .. 2^31 - 1
    return (bits >= round(p * (_LARGEST + 1))).to(torch.int8).reshape(shape)
