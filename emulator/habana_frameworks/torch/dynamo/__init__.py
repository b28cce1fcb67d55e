"""``torch.compile`` on Gaudi: the backend ``hpu_backend``."""

from habana_frameworks.torch._missing import refuse

from . import compile_backend
from .device_interface import register_device_interface
from .trace_rules import register_trace_rules

__all__ = ["compile_backend"]

register_device_interface()
register_trace_rules()

__getattr__ = refuse(__name__)
