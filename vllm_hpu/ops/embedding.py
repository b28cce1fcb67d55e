"""Token embedding shared out over ranks, with this rank's rows as data instead of constants.

vLLM compares token ids with the bounds of the rank's shard, which are Python numbers. A recipe
holds such numbers, so every rank would compile graphs of its own that differ in nothing else.
"""

import torch
from vllm.distributed import tensor_model_parallel_all_reduce
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.vocab_parallel_embedding import (
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
    VocabParallelEmbeddingShardIndices,
)

from vllm_hpu.ops.derived import Derives

__all__ = ["HpuVocabParallelEmbedding", "bounds_of", "local_rows", "register"]


def bounds_of(shard: VocabParallelEmbeddingShardIndices) -> torch.Tensor:
    """``[2, 3]`` int64: first id, end and distance from id to row, of the vocabulary and of what
    adapters add to it; on PyTorch's current default device.
    """
    added_row = shard.num_org_elements_padded
    return torch.tensor(
        [
            [shard.org_vocab_start_index, shard.org_vocab_end_index, shard.org_vocab_start_index],
            [
                shard.added_vocab_start_index,
                shard.added_vocab_end_index,
                shard.added_vocab_start_index - added_row,
            ],
        ],
        dtype=torch.int64,
    )


def local_rows(ids: torch.Tensor, bounds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The shard's row of every id, and which ids other ranks hold.

    Args:
        ids: token ids of any shape and integer dtype.
        bounds: of :func:`bounds_of`; its first row suffices where nothing is added.

    Returns:
        rows, int64, 0 for ids of other ranks; and bool, True for those; both shaped like ``ids``.
    """
    ids = ids.long()
    rows, others = torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool)
    for first, end, distance in bounds:
        mine = (ids >= first) & (ids < end)
        rows = torch.where(mine, ids - distance, rows)
        others = others & ~mine
    return rows, others


class HpuVocabParallelEmbedding(Derives, VocabParallelEmbedding):
    """vLLM's layer; of several ranks, all run the same graph."""

    DERIVED_FROM = ("shard_indices", "quant_method", "tp_size")

    def derive(self) -> None:
        """Whether there are other ranks, and the bounds of this one's rows."""
        self._own_lookup = self.tp_size > 1 and isinstance(
            self.quant_method, UnquantizedEmbeddingMethod
        )
        if self._own_lookup:
            added = self.num_added_embeddings > 0
            bounds = bounds_of(self.shard_indices).to(self.weight.device)
            self.register_buffer("bounds", bounds if added else bounds[:1], persistent=False)

    def forward(self, input_: torch.Tensor) -> torch.Tensor:
        """Embed ``input_`` [tokens]; returns [tokens, hidden], the sum over ranks unless the layer
        was made without ``reduce_results``.
        """
        self.keep_derived()
        if not self._own_lookup:
            return super().forward(input_)
        rows, others = local_rows(input_, self.bounds)
        output = self.quant_method.embedding(self, rows)
        output.masked_fill_(others.unsqueeze(-1), 0)
        if not self.reduce_results:
            return output
        if self.parallel_group is not None:
            return self.parallel_group.all_reduce(output)
        return tensor_model_parallel_all_reduce(output)


def register() -> None:
    """Put our class in the place of vLLM's; harmless when repeated."""
    if VocabParallelEmbedding.__name__ not in op_registry_oot:
        VocabParallelEmbedding.register_oot(HpuVocabParallelEmbedding)
