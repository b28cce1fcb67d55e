"""Helpers: execution mode (:mod:`.internal`), device type (:mod:`.experimental`), debugging."""

from habana_frameworks.torch._missing import refuse

__all__: list[str] = []

__getattr__ = refuse(__name__)
