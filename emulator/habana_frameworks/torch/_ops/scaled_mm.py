"""``torch._scaled_mm``: a product of FP8 matrices, with the card's results in FP8.

``any_mode/test_hpu_scaled_mm.py`` of HabanaAI/gaudi-pytorch-bridge: ``scale_result`` multiplies the
result (PyTorch's kernel for the host divides), and what is out of the card's range is saturated.
"""

import torch

from .fp8_range import saturate
from .library import device_kernel

__all__: list[str] = []

_ATEN = torch.library.Library("aten", "IMPL")
_NARROW = (torch.float8_e4m3fn, torch.float8_e5m2)


@device_kernel(
    "_scaled_mm(Tensor self, Tensor mat2, Tensor scale_a, Tensor scale_b, Tensor? bias,"
    " Tensor? scale_result, ScalarType? out_dtype, bool use_fast_accum) -> Tensor"
)
def _kernel(self, mat2, scale_a, scale_b, bias, scale_result, out_dtype, use_fast_accum):
    dtype = self.dtype if out_dtype is None else out_dtype
    if dtype not in _NARROW:
        return torch._scaled_mm(
            self, mat2, scale_a, scale_b, bias, scale_result, dtype, use_fast_accum
        )
    wide = torch._scaled_mm(self, mat2, scale_a, scale_b, bias, None, torch.float32)
    return saturate(wide if scale_result is None else wide * scale_result, dtype)


def _scaled_mm(
    self: torch.Tensor,
    mat2: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale_result: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
) -> torch.Tensor:
    """``self @ mat2 * scale_a * scale_b (+ bias)``, for FP8 ``[m, k]`` and ``[k, n]``.

    Args:
        scale_a, scale_b: float32, one number or one per row of ``self``, column of ``mat2``.
        scale_result: factor of a result in FP8.
        out_dtype: default that of ``self``.
    """
    return _kernel(self, mat2, scale_a, scale_b, bias, scale_result, out_dtype, use_fast_accum)


_ATEN.impl("_scaled_mm", _scaled_mm, "HPU")
