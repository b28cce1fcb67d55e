"""What ``torch.compile`` gets to see: regions of the model, each compiled once and reused.

A decoder layer is a region; because parameters are inputs of the compiled graph, all layers of a
kind share one recipe per shape. Attention is part of the layer, or an operator of its own where it
cannot be traced (``traced_attention.py``); its functions are then regions shared by all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import nn
from vllm.logger import init_logger

from vllm_hpu.graphs.first_layer import with_residual
from vllm_hpu.graphs.mode import Mode, backend_name
from vllm_hpu.graphs.per_shape import Keyed
from vllm_hpu.settings import settings

logger = init_logger("vllm.plugins.vllm_hpu.graphs")

# One entry per planned shape and region; the default of 8 would silently fall back to eager.
MAX_GRAPHS_PER_REGION = 4096


def compile_options() -> dict[str, Any]:
    """Arguments of ``torch.compile`` from the user's settings."""
    options: dict[str, Any] = {
        "backend": backend_name(),
        "dynamic": False,
        "fullgraph": settings().compile_fullgraph,
    }
    return options


def prepare_dynamo() -> None:
    """Make room for one graph per planned shape; a limit reached would change the mode silently."""
    from vllm_hpu.compat import torch_guards

    torch_guards.install()
    config: Any = torch._dynamo.config
    config.recompile_limit = MAX_GRAPHS_PER_REGION
    config.accumulated_recompile_limit = 16 * MAX_GRAPHS_PER_REGION
    # The worker collects once when warm-up is done; after every graph it is a tenth of warm-up.
    config.run_gc_after_compile = False
    # Layers of one kind have parameters of one shape; treat them as inputs, not as constants.
    config.force_parameter_static_shapes = False


def layer_regions(model: nn.Module) -> Iterator[nn.Module]:
    """The repeated layers of a model: children of every list or dict that hold attention."""
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    for module in model.modules():
        if not isinstance(module, nn.ModuleList | nn.ModuleDict):
            continue
        for layer in module.children():
            if any(isinstance(child, AttentionLayerBase) for child in layer.modules()):
                yield layer


def compile_layers(model: nn.Module) -> int:
    """Compile the model's layers in place; returns how many regions were made."""
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    from vllm_hpu.attention.traced import make_traceable

    # Layers of one class share what is compiled of it.
    forwards: dict[Callable[..., Any], Keyed] = {}
    count = 0
    for layer in layer_regions(model):
        for child in layer.modules():
            if isinstance(child, AttentionLayerBase):
                make_traceable(child)
        function = type(layer).forward
        if "forward" in layer.__dict__ or not isinstance(function, FunctionType):
            layer.compile(**compile_options())
        else:
            run = forwards.setdefault(function, Keyed(function, _compiled))
            layer.forward = with_residual(layer, partial(run, layer))
        count += 1
    if not count:
        logger.warning("No repeated layers found in %s: it runs uncompiled.", type(model).__name__)
    return count


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(function, **compile_options())
    return compiled


def compile_region(function: Callable[..., Any], per_shape: bool, mode: Mode) -> Callable[..., Any]:
    """A function as a region of its own: compiled in compile mode, itself otherwise."""
    if mode is not Mode.COMPILE:
        return function
    return Keyed(function, _compiled) if per_shape else _compiled(function)
