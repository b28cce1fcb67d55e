"""The module behind ``torch.hpu``: devices, streams, memory, graphs, metrics.

The functions of the device itself come from the layer below; what Intel's bridge adds to them is
defined here. After the import ``torch.hpu`` is this module, as with Intel's bridge.
"""

import sys

import torch

from habana_frameworks.torch._device import device_functions as _below
from habana_frameworks.torch._missing import refuse

from . import graphs, memory, metrics, random
from .autocast import (
    get_autocast_hpu_dtype,
    is_autocast_hpu_enabled,
    set_autocast_hpu_dtype,
    set_autocast_hpu_enabled,
)
from .graphs import (
    HPUGraph,
    ModuleCacher,
    graph,
    make_graphed_callables,
    wrap_in_hpu_graph,
    wrap_in_hpu_graph_func,
)
from .modes import (
    disable_dynamic_shape,
    disable_inference_mode,
    disable_optim_output_sif,
    enable_dynamic_shape,
    enable_inference_mode,
    enable_optim_output_sif,
    get_dynamic_shape_status,
    getDeterministic,
    setDeterministic,
)
from .packing import TensorPacker
from .sdp import enable_recompute_sdp, recompute_sdp_enabled, sdp_kernel
from .stream_info import get_stream_info

__all__ = [
    "HPUGraph",
    "ModuleCacher",
    "TensorPacker",
    "disable_dynamic_shape",
    "disable_inference_mode",
    "disable_optim_output_sif",
    "enable_dynamic_shape",
    "enable_inference_mode",
    "enable_optim_output_sif",
    "enable_recompute_sdp",
    "getDeterministic",
    "get_autocast_hpu_dtype",
    "get_dynamic_shape_status",
    "get_stream_info",
    "graph",
    "graphs",
    "is_autocast_hpu_enabled",
    "make_graphed_callables",
    "memory",
    "metrics",
    "random",
    "recompute_sdp_enabled",
    "sdp_kernel",
    "setDeterministic",
    "set_autocast_hpu_dtype",
    "set_autocast_hpu_enabled",
    "wrap_in_hpu_graph",
    "wrap_in_hpu_graph_func",
]

__all__ += [name for name in _below.__all__ if name not in __all__]


_refuse = refuse(__name__)


def __getattr__(name: str):
    """A name of the layer below, looked up there every time, so that it is never stale."""
    try:
        return getattr(_below, name)
    except AttributeError:
        return _refuse(name)


def _become_torch_hpu() -> None:
    module = sys.modules[__name__]
    torch.hpu = module
    sys.modules["torch.hpu"] = module


_become_torch_hpu()
