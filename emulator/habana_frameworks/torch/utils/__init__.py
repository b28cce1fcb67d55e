"""Helpers of the bridge: execution mode (:mod:`.internal`), device type (:mod:`.experimental`)."""

from habana_frameworks.torch._missing import refuse

__all__: list[str] = []

__getattr__ = refuse(__name__)
