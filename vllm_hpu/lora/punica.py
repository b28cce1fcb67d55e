"""The arithmetic of multi-LoRA with static shapes.

vLLM's LoRA layers leave the adapters' products to a "Punica wrapper" (the name comes from
arXiv 2310.18547). Here every adapter slot sees every token: the shrink product of all slots is one
matrix product, and a 0/1 table ``[tokens, slots]`` keeps each token's own adapter. Nothing depends
on which adapters a step uses, so one graph serves all steps with adapters; a step without any
skips the products (``no_lora``, a value on the host), which is a second graph.

Layout of vLLM's weights: ``lora_a_stacked`` ``[slots, 1, rank, in]``, ``lora_b_stacked``
``[slots, 1, out, rank]``, empty slots zero (``lora/layers/base_linear.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F
from vllm.lora.punica_wrapper.punica_base import PunicaWrapperBase
from vllm.utils.torch_utils import async_tensor_h2d

if TYPE_CHECKING:
    from vllm.config.lora import LoRAConfig
    from vllm.lora.layers import LoRAMapping

__all__ = ["PunicaWrapperHPU", "slots_of", "with_adapters", "wrappers_of"]

NO_SLOT = -1


def slots_of(lora_ids: tuple[int, ...], lora_index_to_id: list[int | None]) -> np.ndarray:
    """The slot of each adapter id, int64; ``NO_SLOT`` for id 0 (no adapter).

    Raises:
        ValueError: an id has no slot.
    """
    ids = np.asarray(lora_ids, dtype=np.int64)
    slots = np.full(ids.shape, NO_SLOT, dtype=np.int64)
    for slot, lora_id in enumerate(lora_index_to_id):
        if lora_id is not None:
            slots[ids == lora_id] = slot
    unknown = ids[(slots == NO_SLOT) & (ids > 0)]
    if unknown.size:
        raise ValueError(
            f"LoRA adapter {unknown[0]} is used in this step but is in none of the "
            f"{len(lora_index_to_id)} slots (--max-loras)."
        )
    return slots


def wrappers_of(model: torch.nn.Module) -> set[PunicaWrapperHPU]:
    """The wrappers of the LoRA layers of ``model``."""
    layers = (getattr(layer, "punica_wrapper", None) for layer in model.modules())
    return {wrapper for wrapper in layers if isinstance(wrapper, PunicaWrapperHPU)}


@contextmanager
def with_adapters(wrappers: Iterable[PunicaWrapperHPU], active: bool) -> Iterator[None]:
    """Let LoRA layers run as in a step with adapters, or as in one without."""
    before = [(wrapper, wrapper.no_lora) for wrapper in wrappers]
    for wrapper, _ in before:
        wrapper.no_lora = not active
    try:
        yield
    finally:
        for wrapper, no_lora in before:
            wrapper.no_lora = no_lora


@contextmanager
def with_logits_of(wrappers: Iterable[PunicaWrapperHPU], tokens: torch.Tensor) -> Iterator[None]:
    """Let row i of logits have the adapter of the step's token ``tokens[i]``, integers [rows]."""
    wrappers = tuple(wrappers)
    for wrapper in wrappers:
        wrapper.logit_tokens = tokens
    try:
        yield
    finally:
        for wrapper in wrappers:
            wrapper.logit_tokens = None


class PunicaWrapperHPU(PunicaWrapperBase):
    """Applies each token's adapter; index tensors are persistent and padded to their full length.

    Attributes:
        no_lora: whether no row of the current step has an adapter. A captured graph freezes this
            value: graphs with and without adapters must have different keys.
        logit_tokens: integers [rows], the token of the step that each row of logits is computed
            from; None: one row per request, in the step's order (pooling).
    """

    def __init__(
        self,
        max_num_batched_tokens: int,
        max_batches: int,
        device: torch.device | str,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_num_batched_tokens, max_batches, device)
        lora_config: LoRAConfig = kwargs["lora_config"]
        self.slots: int = lora_config.max_loras
        dtype = lora_config.lora_dtype
        if not isinstance(dtype, torch.dtype):
            dtype = torch.get_default_dtype()
        # Row 0: slot of each token, row 1: slot of each request; NO_SLOT in the padding.
        width = max(max_num_batched_tokens, max_batches)
        self._rows = np.full((2, width), NO_SLOT, dtype=np.int64)
        # [2, tokens, slots]: 1 where the row uses the slot.
        self._own_slot = torch.zeros((2, width, self.slots), dtype=dtype, device=device)
        # The embedding layer reads this buffer by name, with as many rows as the step is padded to.
        async_tensor_h2d(
            np.zeros(self._embeddings_indices.shape, dtype=np.int64), out=self._embeddings_indices
        )
        self.no_lora = True
        self.logit_tokens: torch.Tensor | None = None

    def update_metadata(
        self,
        mapping: LoRAMapping,
        lora_index_to_id: list[int | None],
        max_loras: int,
        vocab_size: int,
        **kwargs: Any,
    ) -> None:
        """Take over the adapters of a step: copies of fixed size, none if nothing has changed.

        Args:
            mapping: adapter id of each token and of each request; 0 means none.
            lora_index_to_id: adapter id in each slot.
            max_loras: unused; the number of slots is fixed.
            vocab_size: rows per slot in the stacked embedding of the adapters.
            **kwargs: unused.
        """
        width = self._rows.shape[1]
        tokens = slots_of(mapping.index_mapping, lora_index_to_id)
        requests = slots_of(mapping.prompt_mapping, lora_index_to_id)
        if max(tokens.size, requests.size) > width:
            raise ValueError(
                f"A LoRA mapping of {tokens.size} tokens and {requests.size} requests does not "
                f"fit the {width} rows made for --max-num-batched-tokens."
            )
        rows = np.full((2, width), NO_SLOT, dtype=np.int64)
        rows[0, : tokens.size] = tokens
        rows[1, : requests.size] = requests
        self.no_lora = bool((tokens < 0).all())
        self.is_prefill = mapping.is_prefill
        if np.array_equal(rows, self._rows):
            return
        self._rows = rows
        own = torch.from_numpy(rows[:, :, None] == np.arange(self.slots))
        async_tensor_h2d(own.to(self._own_slot.dtype), out=self._own_slot)
        first = rows[0, : self._embeddings_indices.shape[0]].clip(min=0) * vocab_size
        async_tensor_h2d(first, out=self._embeddings_indices)

    def _own(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[tokens, slots]``: 1 where the token uses the slot."""
        return self._own_slot[0, : tokens.shape[0]]

    def _own_of_requests(self, requests: torch.Tensor) -> torch.Tensor:
        """``[requests, slots]``: 1 where the request uses the slot."""
        return self._own_slot[1, : requests.shape[0]]

    def _shrink(self, x: torch.Tensor, lora_a: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """``x`` [rows, in] through the A of all slots, other slots zeroed: [rows, slots, rank]."""
        slots, _, rank, _ = lora_a.shape
        every = F.linear(x.to(lora_a.dtype), lora_a.view(slots * rank, -1))
        return every.view(-1, slots, rank) * own.unsqueeze(-1)

    def _expand(self, y: torch.Tensor, shrunk: torch.Tensor, lora_b: torch.Tensor) -> None:
        """Add the B products of ``shrunk`` [rows, slots, rank] to ``y`` [rows, out] in place."""
        # One product per slot: merging slots and ranks into one product would copy all of B.
        for slot in range(lora_b.shape[0]):
            part = shrunk[:, slot].to(lora_b.dtype)
            if y.dtype == lora_b.dtype:
                y.addmm_(part, lora_b[slot, 0].t())
            else:
                y.add_(F.linear(part, lora_b[slot, 0]))

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Add each token's adapter to the output of a linear layer.

        Args:
            y: ``[tokens, out]``, changed in place.
            x: ``[tokens, in]``.
            lora_a_stacked, lora_b_stacked: one per slice of the output (q, k, v; gate, up).
            scale: factor on the adapter's output.
            output_slices: width of each slice, in order.
            buffer: unused.
            **kwargs: unused.
        """
        if self.no_lora:
            return y
        own = self._own(x) * scale if scale != 1.0 else self._own(x)
        start = 0
        for lora_a, lora_b, width in zip(
            lora_a_stacked, lora_b_stacked, output_slices, strict=True
        ):
            self._expand(y[:, start : start + width], self._shrink(x, lora_a, own), lora_b)
            start += width
        return y

    def add_shrink(
        self,
        y: tuple[torch.Tensor, ...] | torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        scale: float,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | torch.Tensor:
        """Add ``x @ A · scale`` of each token's adapter to ``y[slice]`` [tokens, rank] in place."""
        if self.no_lora:
            return y
        x = x.view(-1, x.shape[-1])
        own = self._own(x)
        for index, lora_a in enumerate(lora_a_stacked):
            y[index].add_(self._shrink(x, lora_a, own).sum(dim=1), alpha=scale)
        return y

    def add_expand(
        self,
        y: torch.Tensor,
        x: tuple[torch.Tensor, ...] | torch.Tensor,
        lora_b_stacked: tuple[torch.Tensor, ...],
        output_slices: tuple[int, ...],
        offset_start: int = 0,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Add ``x[slice] @ B`` of each token's adapter to the slices of ``y`` in place.

        ``x[slice]`` is ``[tokens, rank]`` (see :meth:`add_shrink`); ``offset_start`` is the first
        column of ``y``; without ``add_inputs`` the slices are overwritten.
        """
        flat = y.view(-1, y.shape[-1])
        start = offset_start
        for index, (lora_b, width) in enumerate(zip(lora_b_stacked, output_slices, strict=True)):
            target = flat[:, start : start + width]
            if not add_inputs:
                target.zero_()
            if not self.no_lora:
                own = self._own(x[index]).unsqueeze(-1)
                self._expand(target, x[index].unsqueeze(1).to(own.dtype) * own, lora_b)
            start += width
        return y

    def add_lora_embedding(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Add ``x @ B`` of each token's adapter; ``x`` [tokens, rank] is its embedding's A row."""
        return self.add_expand(
            y, (x,), (lora_b_stacked,), (lora_b_stacked.shape[-2],), add_inputs=add_inputs
        )

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        *,
        buffer: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Add the adapters of the language-model head to rows of logits, or of a request's head.

        Whose row is whose: see ``logit_tokens``.

        Args:
            y: ``[rows, vocabulary]``, changed in place.
            x: ``[rows, hidden]``.
            lora_a_stacked, lora_b_stacked: the head's adapters.
            scale: factor on the adapter's output.
            buffer: unused.
            **kwargs: unused.
        """
        if self.no_lora:
            return y
        if self.logit_tokens is None:
            own = self._own_of_requests(x) * scale
        else:
            own = self._own_slot[0].index_select(0, self.logit_tokens) * scale
        self._expand(
            y.view(-1, y.shape[-1])[:, : lora_b_stacked.shape[-2]],
            self._shrink(x.view(-1, x.shape[-1]), lora_a_stacked, own),
            lora_b_stacked,
        )
        return y

    def apply_lora_full_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        weight_stacked: torch.Tensor,
        bias_stacked: torch.Tensor,
        module_enabled: torch.Tensor,
    ) -> torch.Tensor:
        """Replace the rows of a classification head whose adapter brings its own weights.

        Args:
            y: ``[rows, labels]``, changed in place.
            x: ``[rows, hidden]``.
            weight_stacked: ``[slots, 1, labels, hidden]``.
            bias_stacked: ``[slots, labels]``.
            module_enabled: bool ``[slots]``: whether the slot's adapter has such a head.
        """
        if self.no_lora:
            return y
        own = self._own_of_requests(x)
        for slot in range(self.slots):
            replaced = F.linear(x.to(weight_stacked.dtype), weight_stacked[slot, 0])
            replaced = replaced.to(y.dtype) + bias_stacked[slot].to(y.dtype)
            takes = own[:, slot : slot + 1].bool() & module_enabled[slot]
            y.copy_(torch.where(takes, replaced, y))
        return y
