"""Adapters come and go while requests run, without an operator on the card.

vLLM clears a slot of a layer's stacked weights by operators before it copies an adapter into it. In
graphs mode the bridge compiles those, for each slot and for whatever layers an adapter has. Here
zeros are copied from the host instead, as the adapter is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from vllm.lora.layers import BaseLayerWithLoRA

__all__ = ["FillsFromHost", "fill_from_host"]


class FillsFromHost(TorchFunctionMode):
    """``tensor[place] = number`` and ``tensor.zero_()`` as copies from the host."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.zero_:
            return _fill(args[0], 0)
        if func is torch.Tensor.__setitem__ and isinstance(args[2], int | float):
            _fill(args[0][args[1]], args[2])
            return None
        return func(*args, **(kwargs or {}))


def _fill(target: torch.Tensor, number: float) -> torch.Tensor:
    return target.copy_(torch.full(target.shape, number, dtype=target.dtype, device="cpu"))


def fill_from_host(model: nn.Module) -> None:
    """Let each LoRA layer of ``model`` fill and clear its slots from the host."""
    for layer in model.modules():
        if isinstance(layer, BaseLayerWithLoRA):
            for name in ("set_lora", "reset_lora"):
                setattr(layer, name, _from_host(getattr(layer, name)))


def _from_host(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        with FillsFromHost():
            return method(*args, **kwargs)

    return run
