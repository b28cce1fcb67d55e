"""Collectives between cards."""

from habana_frameworks.torch._missing import refuse

from . import hccl

__all__ = ["hccl"]

__getattr__ = refuse(__name__)
