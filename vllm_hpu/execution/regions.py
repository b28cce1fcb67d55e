"""What ``torch.compile`` gets to see: regions of the model, each compiled once and reused.

A decoder layer is a region; because parameters are inputs of the compiled graph, all layers of a
kind share one recipe per shape. The attention functions are regions of their own, shared by all
layers, since the attention operator is opaque to the layer's graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from vllm.logger import init_logger

from vllm_hpu.execution.mode import Mode, backend_name
from vllm_hpu.settings import settings

logger = init_logger("vllm.plugins.vllm_hpu.execution")

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
    config: Any = torch._dynamo.config
    config.recompile_limit = MAX_GRAPHS_PER_REGION
    config.accumulated_recompile_limit = 16 * MAX_GRAPHS_PER_REGION
    # Layers of one kind have parameters of one shape; treat them as inputs, not as constants.
    config.force_parameter_static_shapes = False


def layer_regions(model: nn.Module) -> Iterator[nn.Module]:
    """The repeated layers of a model: children of every ``nn.ModuleList`` that hold attention."""
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    for module in model.modules():
        if not isinstance(module, nn.ModuleList):
            continue
        for layer in module:
            if any(isinstance(child, AttentionLayerBase) for child in layer.modules()):
                yield layer


def compile_layers(model: nn.Module) -> int:
    """Compile the model's layers in place; returns how many regions were made."""
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    from vllm_hpu.execution.opaque_attention import make_opaque

    count = 0
    for layer in layer_regions(model):
        for child in layer.modules():
            if isinstance(child, AttentionLayerBase):
                make_opaque(child)
        layer.compile(**compile_options())
        count += 1
    if not count:
        logger.warning("No repeated layers found in %s: it runs uncompiled.", type(model).__name__)
    return count


def compile_region(function: Callable[..., Any], mode: Mode) -> Callable[..., Any]:
    """A function as a region of its own: compiled in compile mode, itself otherwise."""
    if mode is not Mode.COMPILE:
        return function
    return torch.compile(function, **compile_options())
