"""The FP8 values a card can hold.

Gaudi 3 saturates e4m3 at 448, the format's maximum. Gaudi 2 implements the IEEE-like e4m3 whose
maximum is 240, although PyTorch's dtype could hold more. e5m2 ends at 57344 on both.
Source: hpu_ops/backend of HabanaAI/gaudi-pytorch-bridge and its tests for ``cast_to_fp8_v2``.
"""

import torch

from habana_frameworks.torch.utils.experimental import _get_device_type, synDeviceType

__all__ = ["FP8_DTYPES", "fp8_max", "round_stochastically", "saturate"]

FP8_DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)

_E4M3_MAX_GAUDI2 = 240.0
_E4M3_MAX_GAUDI3 = 448.0
_E5M2_MAX = 57344.0


def fp8_max(dtype: torch.dtype) -> float:
    """The largest finite value of ``dtype`` on the configured card."""
    if dtype == torch.float8_e5m2:
        return _E5M2_MAX
    if dtype != torch.float8_e4m3fn:
        raise ValueError(f"{dtype} is not an FP8 dtype of the card; use one of {FP8_DTYPES}")
    gaudi2 = _get_device_type() == synDeviceType.synDeviceGaudi2
    return _E4M3_MAX_GAUDI2 if gaudi2 else _E4M3_MAX_GAUDI3


def saturate(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Clamp to the card's range and round to ``dtype``; a NaN stays a NaN."""
    limit = fp8_max(dtype)
    return values.clamp(-limit, limit).to(dtype)


def round_stochastically(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Round float32 to neighbours in ``dtype``, so that the expected result is the value.

    A value between two neighbours goes to either with the probability of its distance to the
    other. The random numbers are those of the device's generator.
    """
    mantissa_bits, lowest_exponent = (2, -14) if dtype == torch.float8_e5m2 else (3, -6)
    # frexp gives a fraction in [0.5, 1): the exponent of the leading bit is one less.
    exponent = torch.frexp(values).exponent - 1
    step = torch.exp2((exponent.clamp(min=lowest_exponent) - mantissa_bits).to(torch.float32))
    return torch.floor(values / step + torch.rand_like(values)) * step
