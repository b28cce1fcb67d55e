"""Nested results of a model as a flat tuple of tensors, and back.

Names: python_packages/habana_frameworks/torch/hpu/graphs.py of HabanaAI/gaudi-pytorch-bridge.
"""

import dataclasses
import warnings
from typing import Any

import torch
from torch.utils import _pytree as pytree

__all__ = ["TensorPacker"]


@dataclasses.dataclass
class _Index:
    """The place of a tensor in the flat tuple."""

    value: int

    def __repr__(self) -> str:
        return f"#{self.value}"


class TensorPacker:
    """Takes the tensors out of tuples, lists and dictionaries.

    Args:
        is_out_pack: kept as in the bridge's signature; it only says what the caller packs.
        verbose: warn of values that are not tensors, which stay as they are.
    """

    Index = _Index

    def __init__(self, is_out_pack: bool = False, verbose: bool = False) -> None:
        self.is_out_pack = is_out_pack
        self.verbose = verbose

    def pack(self, outs: Any) -> tuple[tuple[torch.Tensor, ...], Any]:
        """The tensors of ``outs`` in order, and ``outs`` with their places instead of them."""
        tensors: list[torch.Tensor] = []

        def place(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                tensors.append(value)
                return _Index(len(tensors) - 1)
            if self.verbose:
                warnings.warn(
                    f"a value of type {type(value).__name__} stays constant", stacklevel=2
                )
            return value

        metadata = pytree.tree_map(place, outs)
        return tuple(tensors), metadata

    def unpack(self, tensors: tuple[torch.Tensor, ...], metadata: Any) -> Any:
        """What was packed, with other tensors if they are others."""
        return pytree.tree_map(
            lambda value: tensors[value.value] if isinstance(value, _Index) else value, metadata
        )
