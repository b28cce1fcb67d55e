"""Loggers of the compiler backend."""

from habana_frameworks.torch._missing import refuse
from habana_frameworks.torch.utils.debug.logger import Logger

__all__ = ["get_compile_backend_logger", "get_fx_graph_logger"]


def get_compile_backend_logger() -> Logger:
    """A new logger whose messages begin with ``[PT_COMPILE]``."""
    return Logger("PT_COMPILE")


def get_fx_graph_logger() -> Logger:
    """A new logger whose messages begin with ``[PT_COMPILE FX GRAPH]``."""
    return Logger("PT_COMPILE FX GRAPH")


__getattr__ = refuse(__name__)
