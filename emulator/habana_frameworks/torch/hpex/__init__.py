"""Extensions for PyTorch models: fused kernels and normalisations."""

from habana_frameworks.torch._missing import refuse

from . import kernels, normalization

__all__ = ["kernels", "normalization"]

__getattr__ = refuse(__name__)
