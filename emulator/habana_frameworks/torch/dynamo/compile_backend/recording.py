"""Run a traced graph again without Python: its device work is recorded at the first call.

Only graphs whose nodes are known to do nothing but device work are recorded; an operator of another
library may look at something that no input shows. Where the device finds an obstacle (a tensor that
is no input, a value read on the host), the graph runs node by node, as if nothing was recorded.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from habana_frameworks.torch._device import Region, is_capturing

__all__ = ["recorded"]

_LIBRARIES = frozenset({"aten", "hpu", "prims", "prim"})
_MODULES = ("_operator", "math", "torch", "torch._C", "torch._C._nn", "torch.nn.functional")
# What Dynamo makes of `tensor.data`: the tensor without its gradient, over the same memory.
_DATA = ("torch._C._autograd", "_get_data_attr")
# The offset of as_strided counts from the start of a storage that another call may not have.
_NOT_AGAIN = frozenset({"as_strided", "as_strided_", "set_", "resize_", "resize_as_", "data_ptr"})


def _is_device_work(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target not in _NOT_AGAIN
    if node.op == "call_function":
        return _is_device_function(node.target)
    return node.op in ("placeholder", "output")


def _is_device_function(target: Any) -> bool:
    if isinstance(target, torch._ops.OpOverloadPacket):
        target = getattr(target, target.overloads()[0])
    if isinstance(target, torch._ops.OpOverload):
        return target.namespace in _LIBRARIES and target._opname not in _NOT_AGAIN
    name, module = getattr(target, "__name__", ""), getattr(target, "__module__", None)
    return (module, name) == _DATA or (name not in _NOT_AGAIN and module in _MODULES)


def _on_device(values: Sequence[Any]) -> bool:
    return all(isinstance(v, torch.Tensor) and v.device.type == "hpu" for v in values)


def recorded(run: Callable, module: fx.GraphModule) -> Callable:
    """``run``, the function of a graph with fixed shapes, as recorded work where that is possible.

    Args:
        run: takes the graph's inputs and returns a tuple of its results.
        module: the graph.
    """
    if not all(_is_device_work(node) for node in module.graph.nodes):
        return run
    region = Region()
    known = tried = False

    def launch(*args: Any) -> Any:
        nonlocal known, tried
        if known:
            results = region.run(args)
            return run(*args) if results is None else results
        if tried or is_capturing() or torch.is_grad_enabled() or not _on_device(args):
            return run(*args)
        if not region.record_begin():
            return run(*args)
        tried = True
        try:
            results = run(*args)
        except BaseException:
            region.record_abandon()
            raise
        if _on_device(results):
            known = region.record_end(args, results)
        else:
            region.record_abandon()
        return results

    return launch
