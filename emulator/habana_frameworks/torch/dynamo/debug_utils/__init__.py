"""Looking into the compiler backend."""

from habana_frameworks.torch._missing import refuse

__all__: list[str] = []

__getattr__ = refuse(__name__)
