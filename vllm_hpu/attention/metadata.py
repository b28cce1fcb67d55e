"""Attention metadata: a step's persistent integers, and what is derived from them on first use."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from vllm.config import VllmConfig
from vllm.v1.attention.backend import (
    AttentionCGSupport,
    AttentionMetadata,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
    max_decode_query_len,
)
from vllm.v1.kv_cache_interface import AttentionSpec

from vllm_hpu.attention import derive
from vllm_hpu.attention.cache import PageLayout, token_rows
from vllm_hpu.shapes.key import GraphKey

__all__ = ["AttentionShape", "HpuAttentionMetadata", "HpuAttentionMetadataBuilder", "active_key"]

_active: list[GraphKey | None] = [None]


@contextmanager
def active_key(key: GraphKey | None) -> Iterator[None]:
    """Build all metadata within for the planned ``key``; None: for the sizes of the step itself."""
    _active.append(key)
    try:
        yield
    finally:
        _active.pop()


@dataclass(frozen=True)
class AttentionShape:
    """The static sizes of a step's attention.

    tokens          tokens, padding included
    decode_rows     leading rows of which those with 1 to ``decode_queries`` tokens are decode rows
    decode_queries  most tokens of a decode row
    decode_blocks   room for the blocks of all decode rows
    has_prefill     whether other rows may hold tokens
    prefill_blocks  room for the blocks of all prefill rows; 0: they see this step's tokens only
    """

    tokens: int
    decode_rows: int
    decode_queries: int
    decode_blocks: int
    has_prefill: bool
    prefill_blocks: int

    @classmethod
    def planned(cls, key: GraphKey, decode_queries: int, rows: int) -> "AttentionShape":
        """The sizes of a planned graph for a step of ``rows`` rows, padding included."""
        return cls(
            key.tokens,
            min(key.decode_rows, rows),
            decode_queries,
            key.decode_blocks,
            key.has_prefill,
            key.prefill_blocks,
        )

    @classmethod
    def of_step(
        cls,
        common: CommonAttentionMetadata,
        decode_queries: int,
        block_size: int,
        later_tokens: int,
    ) -> "AttentionShape":
        """Sizes for a step without a plan, from what the host knows.

        Args:
            later_tokens: how much longer sequences may get while the same metadata is in use.
        """
        lengths = np.diff(common.query_start_loc_cpu.numpy()[: common.num_reqs + 1])
        if common.seq_lens_cpu_upper_bound is None:
            longest = np.full(common.num_reqs, common.max_seq_len)
        else:
            longest = common.seq_lens_cpu_upper_bound.numpy()[: common.num_reqs]
        blocks = -(-(longest + later_tokens) // block_size)
        queries = max(1, min(decode_queries, common.max_query_len))
        long_rows = np.flatnonzero(lengths > queries)
        rows = int(long_rows[0]) if long_rows.size else common.num_reqs
        prefill = slice(rows, None)
        cached = bool(np.any((longest > lengths)[prefill] & (lengths[prefill] > 0)))
        return cls(
            tokens=common.num_actual_tokens,
            decode_rows=rows,
            decode_queries=queries,
            decode_blocks=_coarse(int(blocks[:rows].sum())),
            has_prefill=bool(long_rows.size),
            prefill_blocks=_coarse(int(blocks[prefill].sum())) if cached else 0,
        )


def _coarse(count: int) -> int:
    """Round up to one of four sizes per power of two, so that unplanned steps repeat shapes."""
    step = max(1, (1 << max(count - 1, 0).bit_length()) // 8)
    return -(-count // step) * step


@dataclass
class HpuAttentionMetadata(AttentionMetadata):
    """One step's attention, for the layers of one group.

    The tensors are the runner's persistent ones. Everything else is derived from them on the device
    when the first layer asks for it, and belongs to one run of the forward: :meth:`reset` drops it.

    query_start_loc  int32 [rows + 1]
    seq_lens         int32 [rows]
    block_table      int32 [rows, width]
    slot_mapping     int64 [tokens]
    causal           whether a query sees no later key
    longest          most tokens a sequence can have (the model's limit)
    """

    shape: AttentionShape
    query_start_loc: torch.Tensor
    seq_lens: torch.Tensor
    block_table: torch.Tensor
    slot_mapping: torch.Tensor
    causal: bool
    longest: int
    derived: dict[tuple, Any] = field(default_factory=dict, repr=False)

    # What vLLM's MLA layer asks of any metadata: every token takes the absorbed path.
    prefill: ClassVar[None] = None

    @property
    def num_actual_tokens(self) -> int:
        """Tokens, padding included: attention takes them all."""
        return self.shape.tokens

    @property
    def num_decode_tokens(self) -> int:
        """Tokens that vLLM's MLA layer hands to ``forward_mqa``: all."""
        return self.shape.tokens

    @property
    def num_decodes(self) -> int:
        """Rows of those tokens."""
        return self.seq_lens.shape[0]

    @property
    def num_prefills(self) -> int:
        """Rows that vLLM's MLA layer would hand to ``forward_mha``: none."""
        return 0

    @property
    def decode(self) -> "HpuAttentionMetadata":
        """What vLLM's MLA layer requires to exist for the tokens of ``forward_mqa``."""
        return self

    def reset(self) -> None:
        """Drop what was derived; the next layer derives it anew from the present values."""
        self.derived.clear()

    def _once(self, key: tuple, make: Any, *args: Any) -> Any:
        found = self.derived.get(key)
        if found is None:
            found = self.derived[key] = make(*args)
        return found

    def tokens(self) -> derive.TokenPlan:
        """Row and position of each token."""
        return self._once(
            ("tokens",),
            derive.derive_tokens,
            self.query_start_loc,
            self.seq_lens,
            self.shape.tokens,
        )

    def cache_rows(self, layout: PageLayout) -> torch.Tensor:
        """Where this step's keys and values go."""
        return self._once(
            ("rows", layout), token_rows, self.slot_mapping[: self.shape.tokens], layout
        )

    def decode_plan(
        self, layout: PageLayout, heads: int, window: int | None, dtype: torch.dtype
    ) -> derive.DecodePlan:
        """Blocks of the decode rows."""
        shape = self.shape
        plain = not shape.has_prefill and shape.tokens == shape.decode_rows
        plain = plain and shape.decode_queries == 1
        blocks = derive.window_blocks(
            shape.decode_blocks, shape.decode_rows, window, shape.decode_queries, layout.block_size
        )
        return self._once(
            ("decode", layout, heads, window, dtype),
            derive.derive_decode,
            None if plain else self.tokens(),
            self.query_start_loc,
            self.seq_lens,
            self.block_table,
            shape.decode_rows,
            max(1, blocks),
            shape.decode_queries,
            heads,
            layout,
            window,
            self.causal,
            dtype,
        )

    def prefill_plan(
        self,
        layout: PageLayout | None,
        window: int | None,
        dtype: torch.dtype,
        from_cache: bool = False,
    ) -> derive.PrefillPlan:
        """Mask of the prefill rows, and their blocks where they have context.

        Args:
            layout: None for layers without a cache.
            from_cache: list blocks even when this step's tokens are all there is, for layers that
                read another layer's cache.
        """
        shape = self.shape
        if layout is None or not (shape.prefill_blocks or from_cache):
            return self._once(
                ("prefill", window, dtype),
                derive.derive_prefill,
                self.tokens(),
                window,
                self.causal,
                dtype,
            )
        # This step's tokens fill at most so many blocks, one begun block per row included.
        rows = self.seq_lens.shape[0]
        fresh = shape.tokens // layout.block_size + rows
        blocks = shape.prefill_blocks or fresh
        if window is not None:
            blocks = min(
                blocks,
                derive.window_blocks(blocks, rows, window, 1, layout.block_size) + fresh,
            )
        return self._once(
            ("prefill", layout, window, dtype),
            derive.derive_prefill_cached,
            self.tokens(),
            self.query_start_loc,
            self.seq_lens,
            self.block_table,
            shape.decode_rows,
            shape.decode_queries,
            blocks,
            layout,
            window,
            self.causal,
            dtype,
        )


class HpuAttentionMetadataBuilder(AttentionMetadataBuilder[HpuAttentionMetadata]):
    """Builds the metadata of one group of layers; reads host numbers only."""

    # A draft loop may be recorded once and replayed: everything is derived from persistent tensors.
    supports_draft_decode_metadata_update = True

    def __init__(
        self,
        kv_cache_spec: AttentionSpec,
        layer_names: list[str],
        vllm_config: VllmConfig,
        device: torch.device,
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        if getattr(kv_cache_spec, "attention_chunk_size", None) is not None:
            raise ValueError(
                "chunked local attention (Llama 4) is not supported on HPU yet; serve another model"
            )
        self.block_size = kv_cache_spec.block_size
        self.decode_queries = max_decode_query_len(vllm_config)
        self._init_reorder_batch_threshold(1, supports_spec_as_decode=True)

    @classmethod
    def get_cudagraph_support(
        cls, vllm_config: VllmConfig, kv_cache_spec: Any
    ) -> AttentionCGSupport:
        """A graph of a key replays every step of that key, mixed ones included."""
        return AttentionCGSupport.ALWAYS

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,
    ) -> HpuAttentionMetadata:
        """Metadata for the planned key that is active, else for the sizes of the step itself."""
        common = common_attn_metadata
        if not isinstance(common.causal, bool):
            raise ValueError(
                "attention that is causal for some rows and not for others is not supported on HPU"
            )
        key = _active[-1]
        if key is not None:
            shape = AttentionShape.planned(key, self.decode_queries, common.num_reqs)
        else:
            shape = AttentionShape.of_step(
                common, self.decode_queries, self.block_size, self.decode_queries - 1
            )
        return HpuAttentionMetadata(
            shape=shape,
            query_start_loc=common.query_start_loc[: common.num_reqs + 1],
            seq_lens=common.seq_lens[: common.num_reqs],
            block_table=common.block_table_tensor[: common.num_reqs],
            slot_mapping=common.slot_mapping,
            causal=common.causal,
            longest=self.vllm_config.model_config.max_model_len,
        )

    def update_draft_decode_metadata(self, metadata: HpuAttentionMetadata) -> None:
        """Let the next draft step derive its metadata from the tensors it has just advanced."""
        metadata.reset()
