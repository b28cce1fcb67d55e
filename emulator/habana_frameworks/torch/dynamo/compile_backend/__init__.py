"""The compiler backend; importing this package registers ``hpu_backend``."""

from habana_frameworks.torch._missing import refuse

from . import backends, config

__all__ = ["backends", "config"]

__getattr__ = refuse(__name__)
