"""Fused normalisations."""

from habana_frameworks.torch._missing import refuse

from .FusedRMSNorm import FusedRMSNorm

__all__ = ["FusedRMSNorm"]

__getattr__ = refuse(__name__)
