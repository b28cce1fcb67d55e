"""Adapters come and go while requests run: what a layer launches for that is a graph of its own.

In graphs mode the bridge compiles what it has gathered. An adapter that leaves a layer out would
make another graph of the layers around it; a layer at a time, warm-up's dummy adapters have made
them all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn
from vllm.lora.layers import BaseLayerWithLoRA

from vllm_hpu.device.own_graph import own_graph

__all__ = ["separate_slots"]


def separate_slots(model: nn.Module) -> None:
    """Let each LoRA layer of ``model`` fill and clear its slots by graphs of its own."""
    for layer in model.modules():
        if isinstance(layer, BaseLayerWithLoRA):
            for name in ("set_lora", "reset_lora"):
                setattr(layer, name, _separate(getattr(layer, name)))


def _separate(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        with own_graph():
            return method(*args, **kwargs)

    return run
