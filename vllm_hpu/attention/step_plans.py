"""What the attention layers of a model ask of a step, known before its forward runs.

All plans of a step are derived at once, by one region; layers then find them in their group's
metadata, and traced ones in their slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from vllm_hpu.attention.metadata import HpuAttentionMetadata
from vllm_hpu.attention.plans import Need, derive_plans
from vllm_hpu.attention.traced import Slot


class StepPlans:
    """Derives the plans of a step's layers and hands them out.

    Args:
        model: whose layers are asked.
        layers: the engine's attention layers by name, those of other models included.
        dtype: of queries.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, Any], dtype: torch.dtype) -> None:
        own = {id(module) for module in model.modules()}
        self._layers = {
            name: layer
            for name, layer in layers.items()
            if id(layer) in own and hasattr(getattr(layer, "impl", None), "need")
        }
        self._dtype = dtype
        self._kinds: list[tuple[str, dict[Need, Slot]]] | None = None

    @contextmanager
    def handed_out(self, metadata: Mapping[str, Any]) -> Iterator[None]:
        """Derive what the layers need of a step with this ``metadata``, by the name of the layer.

        Traced layers have it inside the block.
        """
        if self._kinds is None:
            self._kinds = self._kinds_of(metadata)
        groups: list[HpuAttentionMetadata] = [metadata[name] for name, _ in self._kinds]
        for group in groups:
            group.reset()
        if groups:
            plans = derive_plans(
                groups[0].rows,
                [
                    group.group(*kinds)
                    for group, (_, kinds) in zip(groups, self._kinds, strict=True)
                ],
            )
            for group, (_, kinds), found in zip(groups, self._kinds, plans, strict=True):
                for (need, slot), one in zip(kinds.items(), found, strict=True):
                    group.derived[need] = slot.plans = one
        try:
            yield
        finally:
            for _, kinds in self._kinds:
                for slot in kinds.values():
                    slot.plans = None

    def _kinds_of(self, metadata: Mapping[str, Any]) -> list[tuple[str, dict[Need, Slot]]]:
        """For each metadata object: the name of a layer that has it, and its layers' slots."""
        kinds: dict[int, tuple[str, dict[Need, Slot]]] = {}
        for name, layer in self._layers.items():
            group = metadata.get(name)
            if not isinstance(group, HpuAttentionMetadata):
                continue
            need = layer.impl.need(layer.kv_cache, self._dtype)
            _, slots = kinds.setdefault(id(group), (name, {}))
            slot = slots.setdefault(need, Slot(need))
            if hasattr(layer, "hpu_slot"):
                layer.hpu_slot = slot
        return list(kinds.values())
