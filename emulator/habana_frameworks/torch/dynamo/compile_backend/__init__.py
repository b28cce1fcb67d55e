"""The compiler backend ``hpu_backend``; PyTorch finds it by the entry point of the package."""

from habana_frameworks.torch._missing import refuse

from . import backends, config

__all__ = ["backends", "config"]

__getattr__ = refuse(__name__)
