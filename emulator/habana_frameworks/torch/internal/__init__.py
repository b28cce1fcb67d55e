"""Internal but widely used parts of the bridge: its configuration flags."""

from . import bridge_config

__all__ = ["bridge_config"]

from habana_frameworks.torch._missing import refuse

__getattr__ = refuse(__name__)
