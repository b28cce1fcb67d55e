"""Attention as one operator that looks the same in every layer.

A compiled layer is reused by all layers of its kind only if nothing in it names the layer.
Attention layers look up their metadata and cache by name, so in compile mode each gets a *handle*,
a host tensor that is an input of the compiled graph, and this operator finds the layer by it.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn

_library = torch.library.Library("vllm_hpu", "FRAGMENT")
_library.define(
    "attention(Tensor query, Tensor? key, Tensor? value, Tensor handle, int width) -> Tensor"
)

_layers: list[nn.Module] = []


def _run(
    query: torch.Tensor,
    key: torch.Tensor | None,
    value: torch.Tensor | None,
    handle: torch.Tensor,
    width: int,
) -> torch.Tensor:
    layer = _layers[int(handle)]
    forward: Any = type(layer).forward
    return forward(layer, query, key, value, torch.Size((query.shape[0], width)))


def _shape(
    query: torch.Tensor,
    key: torch.Tensor | None,
    value: torch.Tensor | None,
    handle: torch.Tensor,
    width: int,
) -> torch.Tensor:
    return query.new_empty((query.shape[0], width))


_library.impl("attention", _run, "HPU")
_library.impl("attention", _shape, "Meta")


def make_opaque(layer: nn.Module) -> None:
    """Let ``layer`` (an ``Attention`` or ``MLAAttention`` of vLLM) run behind the operator.

    Both take three tensors of which the first is [tokens, ...], and return [tokens, width].
    """
    if hasattr(layer, "hpu_handle"):
        return
    layer.hpu_handle = torch.tensor(len(_layers))
    _layers.append(layer)
    layer.forward = MethodType(_opaque_forward, layer)


def _opaque_forward(
    self: Any,
    query: torch.Tensor,
    key: torch.Tensor | None,
    value: torch.Tensor | None,
    output_shape: torch.Size | None = None,
    **options: Any,
) -> torch.Tensor:
    # Options of the two layers (another output type, replicated queries) that no supported
    # configuration uses; they cannot pass through the operator.
    used = sorted(name for name, option in options.items() if option not in (None, query.dtype))
    if used:
        raise ValueError(
            f"The attention layer was called with {', '.join(used)}, which compile mode does not "
            f"support. Use --enforce-eager."
        )
    width = output_shape[-1] if output_shape is not None else self.num_heads * self.head_size_v
    return torch.ops.vllm_hpu.attention(query, key, value, self.hpu_handle, width)
