"""Which sizes a step gets, which backend a layer gets, and what is refused."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from vllm.v1.attention.backend import AttentionType, CommonAttentionMetadata
from vllm.v1.attention.backends.registry import AttentionBackendEnum
from vllm.v1.attention.selector import AttentionSelectorConfig

from vllm_hpu.attention.backend import HpuAttentionBackend
from vllm_hpu.attention.cache import PageLayout
from vllm_hpu.attention.derive import window_blocks
from vllm_hpu.attention.impl import HpuAttentionImpl
from vllm_hpu.attention.mla import HpuMLABackend
from vllm_hpu.attention.plans import Need, plans_of
from vllm_hpu.attention.registry import register, select
from vllm_hpu.attention.shape import AttentionShape
from vllm_hpu.shapes.key import GraphKey

from .attention_case import Case, Row, make


def common(lengths: list[int], ends: list[int], bound: bool = True) -> CommonAttentionMetadata:
    starts = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    seq_lens = torch.tensor(ends, dtype=torch.int32)
    return CommonAttentionMetadata(
        query_start_loc=starts,
        query_start_loc_cpu=starts,
        seq_lens=seq_lens,
        seq_lens_cpu_upper_bound=seq_lens if bound else None,
        num_reqs=len(lengths),
        num_actual_tokens=sum(lengths),
        max_query_len=max(lengths),
        max_seq_len=max(ends),
        block_table_tensor=torch.zeros(len(lengths), 8, dtype=torch.int32),
        slot_mapping=torch.zeros(sum(lengths), dtype=torch.int64),
    )


def sizes(shape: AttentionShape) -> tuple[int, int, int, int, bool, int]:
    return (
        shape.tokens,
        shape.decode_rows,
        shape.decode_queries,
        shape.decode_blocks,
        shape.has_prefill,
        shape.prefill_blocks,
    )


def test_step_of_decode_rows() -> None:
    shape = AttentionShape.of_step(common([1, 1, 1], [16, 17, 5]), 1, 16, 0)
    assert sizes(shape) == (3, 3, 1, 4, False, 0)


def test_step_that_mixes() -> None:
    shape = AttentionShape.of_step(common([1, 3, 20], [16, 17, 20]), 4, 16, 0)
    assert sizes(shape) == (24, 2, 4, 3, True, 0)


def test_step_with_cached_context_counts_all_blocks_of_prefill_rows() -> None:
    shape = AttentionShape.of_step(common([1, 20, 9], [16, 20, 40]), 1, 16, 0)
    assert sizes(shape) == (30, 1, 1, 1, True, 5)


def test_room_for_tokens_that_come_while_the_metadata_lives() -> None:
    assert AttentionShape.of_step(common([1], [16]), 4, 16, 0).decode_blocks == 1
    assert AttentionShape.of_step(common([1], [16]), 4, 16, 3).decode_blocks == 2


def test_short_rows_behind_a_long_one_are_prefill_rows() -> None:
    shape = AttentionShape.of_step(common([1, 20, 1], [5, 20, 33]), 1, 16, 0)
    assert (shape.decode_rows, shape.prefill_blocks) == (1, 5)


def test_without_a_bound_the_longest_sequence_counts() -> None:
    shape = AttentionShape.of_step(common([1, 1], [5, 40], bound=False), 1, 16, 0)
    assert shape.decode_blocks == 6


def test_planned_key() -> None:
    key = GraphKey(64, 8, 32, True, 16)
    assert sizes(AttentionShape.planned(key, 3, 20)) == (64, 8, 3, 32, True, 16)
    assert AttentionShape.planned(key, 3, 5).decode_rows == 5


def test_room_for_a_window_is_enough_and_no_more() -> None:
    """The most blocks that any start of the window can touch."""
    for size in (16, 48):
        for window in range(1, 100):
            for queries in (1, 4):
                span = window + queries - 1
                most = max((start + span - 1) // size + 1 for start in range(size))
                assert most <= window_blocks(10**6, 1, window, queries, size) <= most + 1
    assert window_blocks(7, 3, None, 1, 16) == 7
    assert window_blocks(7, 300, 20, 1, 16) == 7


ORDINARY = AttentionSelectorConfig(64, torch.bfloat16, "auto", 128)


def test_selects_by_kind_of_layer() -> None:
    register()
    register()
    for name, config, backend in (
        ("HPU_ATTN", ORDINARY, HpuAttentionBackend),
        ("HPU_MLA", ORDINARY._replace(use_mla=True, head_size=576), HpuMLABackend),
    ):
        path = select(config)
        assert AttentionBackendEnum[name].get_class() is backend
        assert AttentionBackendEnum[name].get_path() == path
        assert backend.get_name() == name


@pytest.mark.parametrize(
    "feature",
    [
        {"has_sink": True, "has_sliding_window": True},
        {"attn_type": AttentionType.ENCODER_ONLY},
        {"dtype": torch.float32, "block_size": 16},
        {"use_kv_connector": True},
    ],
)
def test_serves(feature: dict) -> None:
    assert select(ORDINARY._replace(**feature)) == select(ORDINARY)


@pytest.mark.parametrize(
    ("feature", "named"),
    [
        ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype"),
        ({"block_size": 24}, "block_size"),
        ({"attn_type": AttentionType.ENCODER_DECODER}, "attention type"),
        ({"use_sparse": True, "use_mla": True}, "sparse"),
        ({"has_sink": True, "use_mla": True}, "sinks"),
        ({"use_dcp": True}, "DCP"),
        ({"use_mm_prefix": True}, "multimodal"),
        ({"dtype": torch.float64}, "dtype"),
    ],
)
def test_refuses_by_name(feature: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        select(ORDINARY._replace(**feature))


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ({"alibi_slopes": [0.1, 0.2]}, "ALiBi"),
        ({"attn_type": AttentionType.ENCODER_DECODER}, "cross attention"),
        ({"chunk_lookback": 3}, "chunk_lookback"),
        ({"sinks": torch.zeros(3)}, "3 attention sinks"),
    ],
)
def test_layer_refuses_by_name(option: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        HpuAttentionImpl(2, 16, 0.25, **option)


def test_cache_with_scattered_pages_is_refused() -> None:
    """Tokens outside heads (LBNHC): a head's keys do not lie together."""
    cache = torch.zeros(4, 16, 2, 32).transpose(1, 2)
    with pytest.raises(ValueError, match="LBHNC"):
        PageLayout.of(cache, 2)


class _Counter(TorchDispatchMode):
    """Counts the operators that are called, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_whose_token_is_whose_is_derived_once_for_all_groups_and_layers() -> None:
    metadata = make(Case([Row(5, 1), Row(0, 20)]), "cpu").metadata
    layout = PageLayout(16, 2, 2, 32, 4)
    kinds = [Need(layout, 4, window, torch.float32, True, False) for window in (None, 8)]
    with _Counter() as counter:
        plans_of(metadata.rows, [metadata.group(*kinds), metadata.group(*kinds)])
    # One look-up of the tokens' rows, and one of the decode blocks' rows for each kind.
    assert counter.calls["searchsorted"] == 1 + 4
