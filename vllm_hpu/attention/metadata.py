"""Attention metadata: a step's persistent integers, and what is derived from them on first use."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

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

from vllm_hpu.attention.plans import Group, Need, Plans, Rows, derive_plans
from vllm_hpu.attention.shape import AttentionShape
from vllm_hpu.shapes.key import GraphKey

__all__ = ["HpuAttentionMetadata", "HpuAttentionMetadataBuilder", "active_key"]

_active: list[GraphKey | None] = [None]


@contextmanager
def active_key(key: GraphKey | None) -> Iterator[None]:
    """Build all metadata within for the planned ``key``; None: for the sizes of the step itself."""
    _active.append(key)
    try:
        yield
    finally:
        _active.pop()


@dataclass
class HpuAttentionMetadata(AttentionMetadata):
    """One step's attention, for the layers of one group.

    The tensors are the runner's persistent ones. Everything else is derived from them on the
    device, before the first layer or when it asks, and belongs to one run of the forward:
    :meth:`reset` drops it.

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
    derived: dict[Need, Plans] = field(default_factory=dict, repr=False)

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

    @property
    def rows(self) -> Rows:
        """What all groups of a step have in common."""
        return Rows(self.query_start_loc, self.seq_lens)

    def group(self, *needs: Need) -> Group:
        """The tensors with what layers ask of them."""
        return Group(
            self.block_table,
            self.slot_mapping[: self.shape.tokens],
            self.shape,
            self.causal,
            self.longest,
            needs,
        )

    def plans(self, need: Need) -> Plans:
        """What layers with ``need`` get, derived unless it has been."""
        found = self.derived.get(need)
        if found is None:
            [[found]] = derive_plans(self.rows, [self.group(need)])
            self.derived[need] = found
        return found


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
