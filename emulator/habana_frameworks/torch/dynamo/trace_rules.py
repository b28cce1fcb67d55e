"""What Dynamo makes of the functions of ``torch.hpu`` in code that it traces.

PyTorch has rules of this kind for CUDA and XPU. A question about the device becomes its answer, and
streams become part of the graph. What has no rule ends the graph, as ``set_stream`` and
``synchronize`` do.
"""

import torch
from torch._dynamo.trace_rules import get_torch_obj_rule_map, torch_name_rule_map
from torch._dynamo.variables import torch as functions
from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

from habana_frameworks.torch import hpu
from habana_frameworks.torch.hpu import _utils

__all__ = ["register_trace_rules"]

_ANSWERED = ("device_count", "get_device_capability", "get_device_name", "is_available")
# The answer may be another one at the next call, so that a guard asks again.
_ANSWERED_WITH_GUARD = ("current_device",)
_STREAMS = ("current_stream", "stream")


def register_trace_rules() -> None:
    """Add the rules; the interface of the device must be registered before."""
    names = [f"{hpu.__name__}.{name}" for name in _ANSWERED + _ANSWERED_WITH_GUARD + _STREAMS]
    names.append(f"{_utils.__name__}._get_device_index")
    torch_name_rule_map.append(dict.fromkeys(names, TorchInGraphFunctionVariable))
    get_torch_obj_rule_map.cache_clear()
    for name in _ANSWERED + _ANSWERED_WITH_GUARD:
        functions.constant_fold_functions[getattr(hpu, name)] = None
    functions.constant_fold_functions[_utils._get_device_index] = None
    for name in _ANSWERED_WITH_GUARD:
        functions.constant_fold_functions_need_guards[getattr(hpu, name)] = None
    # `stream` of a registered interface has its handler; `current_stream` has one by name.
    TorchInGraphFunctionVariable._get_handlers.cache_clear()
    handlers = TorchInGraphFunctionVariable._get_handlers()
    handlers[hpu.current_stream] = handlers[torch.accelerator.current_stream]
