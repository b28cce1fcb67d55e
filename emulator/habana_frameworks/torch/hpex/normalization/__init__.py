"""Fused normalisations."""

from habana_frameworks.torch._missing import refuse

from .FusedRMSNorm import FusedRMSNorm, RmsNormBwdMode

__all__ = ["FusedRMSNorm", "RmsNormBwdMode"]

__getattr__ = refuse(__name__)
