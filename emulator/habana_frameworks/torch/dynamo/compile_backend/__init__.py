"""The compiler backend; importing this package registers ``hpu_backend``."""

from habana_frameworks.torch._missing import refuse

from . import backends

__all__ = ["backends"]

__getattr__ = refuse(__name__)
