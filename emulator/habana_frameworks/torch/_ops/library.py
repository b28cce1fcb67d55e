"""Registration of the operators ``torch.ops.hpu.*``.

Each operator is defined with the schema of Intel's bridge, gets one kernel for the HPU dispatch
key, and one shape function for tracing ("fake" tensors). The kernels work on ``hpu`` tensors, so
that whatever watches the device (graph capture, counters) sees the work itself. A call with host
tensors finds no kernel and raises, as on a card.

Where the card has one fused kernel, so have we: written once over host tensors, in the private
namespace ``gaudi_kernel`` (here in Python, or in csrc/bridge in C++). Called with ``hpu`` tensors
it takes the device's general path for operators: one launch, one node of a captured graph, values
read when it runs.
"""

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["argument_names", "device_kernel", "lower_in_place", "operator"]

_LIBRARY = torch.library.Library("hpu", "FRAGMENT")
_KERNELS = torch.library.Library("gaudi_kernel", "FRAGMENT")


def argument_names(schema: str) -> list[str]:
    """The names of a schema's arguments, in order; the schema is without a namespace."""
    return [argument.name for argument in torch._C.parse_schema(schema).arguments]


def operator(schema: str, fake: Callable[..., Any]) -> Callable[[Callable], Callable]:
    """Define ``hpu::<schema>`` and register the decorated function as its HPU kernel.

    Args:
        schema: the operator's schema without namespace, e.g. ``"f(Tensor x) -> Tensor"``.
        fake: takes the operator's arguments, returns empty outputs of the right shape and dtype.
    """
    name = schema.split("(", 1)[0]

    def register(kernel: Callable) -> Callable:
        _LIBRARY.define(schema)
        _LIBRARY.impl(name, kernel, "HPU")
        torch.library.register_fake(f"hpu::{name}", fake, lib=_LIBRARY)
        return kernel

    return register


def lower_in_place(name: str) -> None:
    """Let compiled graphs hold ``hpu::<name>`` for ``hpu::<name>_``, which writes its first input.

    PyTorch does this by itself for operators of its own only.
    """
    written = getattr(torch.ops.hpu, f"{name}_").default
    pure = getattr(torch.ops.hpu, name).default

    @written.py_functionalize_impl
    def lowered(context, self, *args):
        with context.redispatch_to_next():
            value = pure(*context.unwrap_tensors((self, *args)))
        wrapped = context.wrap_tensors(value)
        context.replace(self, context.unwrap_tensors(wrapped))
        context.commit_update(self)
        context.sync(self)
        return self


def device_kernel(schema: str) -> Callable[[Callable], Callable]:
    """Define ``gaudi_kernel::<schema>`` with the decorated function, written over host tensors.

    The caller is the HPU kernel of a public operator; programs never name this namespace.
    """
    name = schema.split("(", 1)[0]

    def register(kernel: Callable) -> Callable:
        _KERNELS.define(schema)
        _KERNELS.impl(name, kernel, "CPU")
        return getattr(torch.ops.gaudi_kernel, name).default

    return register
