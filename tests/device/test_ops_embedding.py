"""Token embedding of a rank: vLLM's rows exactly, and one recipe for all ranks."""

import pytest
import torch
from gaudi_emulator.graph import Graph
from vllm.model_executor.layers.vocab_parallel_embedding import (
    VocabParallelEmbedding,
    get_masked_input_and_mask,
)

from vllm_hpu.ops.embedding import bounds_of, local_rows

from .conftest import counted, emulated_only

VOCABULARY, ADDED, RANKS = 1010, 16, 2
SHARDS = [
    # Sizes of the example in vLLM's description of the layer.
    VocabParallelEmbedding._get_indices(1088, 1024, VOCABULARY + ADDED, VOCABULARY, rank, RANKS)
    for rank in range(RANKS)
]


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_rows_are_those_of_vllm(rank, dtype):
    shard = SHARDS[rank]
    ids = torch.arange(-3, VOCABULARY + ADDED + 100, dtype=dtype)
    expected, expected_others = get_masked_input_and_mask(
        ids,
        shard.org_vocab_start_index,
        shard.org_vocab_end_index,
        shard.num_org_vocab_padding,
        shard.added_vocab_start_index,
        shard.added_vocab_end_index,
    )
    rows, others = local_rows(ids.to("hpu"), bounds_of(shard).to("hpu"))
    assert rows.dtype == torch.int64
    assert torch.equal(rows.cpu(), expected.long())
    assert torch.equal(others.cpu(), expected_others)
    assert int((~others).sum()) == (528, 498)[rank]


def test_without_added_ids_one_row_of_bounds_suffices():
    shard = VocabParallelEmbedding._get_indices(1024, 1024, VOCABULARY, VOCABULARY, 1, RANKS)
    ids = torch.arange(VOCABULARY)
    one, both = (local_rows(ids, bounds) for bounds in (bounds_of(shard)[:1], bounds_of(shard)))
    assert all(torch.equal(a, b) for a, b in zip(one, both, strict=True))
    assert one[0].max() == 1010 - 512 - 1


@emulated_only
def test_ranks_have_one_recipe():
    ids = torch.arange(20, dtype=torch.int32, device="hpu")
    compiled = []
    for shard in SHARDS:
        bounds = bounds_of(shard).to("hpu")
        graph = Graph()
        with counted() as happened, torch.inference_mode():
            graph.capture_begin()
            kept = local_rows(ids, bounds)
            graph.capture_end()
        del kept
        compiled.append(happened.total_compilations)
    assert compiled == [1, 0]
