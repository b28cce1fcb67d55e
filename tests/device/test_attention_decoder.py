"""Decoder attention on the device against dense attention in float64."""

import random

import habana_frameworks.torch  # noqa: F401  (brings the hpu device)
import pytest
import torch

from vllm_hpu.attention.impl import HpuAttentionImpl

from .attention_case import Case, Row, Step, impl_for, make, reference

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def run(step: Step) -> torch.Tensor:
    """The layer's output on the host, ``[tokens, heads, width]``, padding included."""
    case = step.case
    impl = impl_for(case, step.sinks)
    output = torch.full_like(step.query, float("nan"))
    impl.forward(None, step.query, step.key, step.value, step.cache, step.metadata, output)
    return output.cpu()


def check(case: Case) -> torch.Tensor:
    """Run a case; compare real tokens, and ask of padding that it is finite."""
    step = make(case, "hpu")
    output = run(step)
    assert torch.isfinite(output).all()
    expected = reference(step)
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(
        output[: case.tokens].double(), expected, rtol=0, atol=TOLERANCE[case.dtype] * scale
    )
    return output


def random_case(seed: int) -> Case:
    """Any mix that the runner can send, in the runner's order of rows."""
    dice = random.Random(seed)
    queries = dice.choice([1, 1, 2, 3, 4])
    decodes, prefills = dice.randint(0, 5), dice.randint(0, 3)
    if not decodes + prefills:
        decodes = 1
    cached = dice.random() < 0.5
    longest = dice.choice([queries + 5, 90, 600])
    rows = [Row(dice.randint(0, 300), dice.randint(1, queries)) for _ in range(decodes)]
    rows += [
        Row(dice.randint(0, 200) if cached else 0, dice.randint(queries + 1, longest))
        for _ in range(prefills)
    ]
    tokens = sum(row.new for row in rows)
    kv_heads = dice.choice([1, 2, 3])
    case = Case(
        rows,
        heads=kv_heads * dice.choice([1, 2, 4]),
        kv_heads=kv_heads,
        width=dice.choice([16, 32, 64]),
        block_size=dice.choice([16, 48, 128]),
        queries=queries,
        window=dice.choice([None, None, 1, 7, 40, 130]),
        soft_cap=dice.choice([None, None, 5.0]),
        sinks=dice.random() < 0.3,
        padding_tokens=dice.randint(0, 7),
        padding_rows=dice.randint(0, 3),
        spare_blocks=dice.randint(0, 5),
        seed=seed,
    )
    if prefills:
        # A mixed key has room for more decode rows than there are, or for none at all.
        case.decode_rows = dice.choice([None, 0, min(decodes + prefills, tokens)])
    return case


@pytest.mark.parametrize("batch", range(8))
def test_random_mixes(batch: int) -> None:
    for seed in range(batch * 12, batch * 12 + 12):
        check(random_case(seed))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", range(1000, 1010))
def test_half_precision(dtype: torch.dtype, seed: int) -> None:
    case = random_case(seed)
    case.dtype = dtype
    check(case)


@pytest.mark.parametrize("block_size", [16, 128])
@pytest.mark.parametrize("share", [1, 3, 8])
def test_grouped_heads(block_size: int, share: int) -> None:
    check(Case([Row(5, 1), Row(300, 1)], heads=2 * share, kv_heads=2, block_size=block_size))
    check(Case([Row(0, 200)], heads=2 * share, kv_heads=2, block_size=block_size))


@pytest.mark.parametrize("window", [1, 15, 16, 17, 33])
@pytest.mark.parametrize("queries", [1, 4])
def test_window_at_every_offset_in_a_block(window: int, queries: int) -> None:
    """The blocks a window needs depend on where it starts; the list's room must fit the worst."""
    rows = [Row(computed, queries) for computed in range(40, 57)]
    check(Case(rows, window=window, queries=queries, block_size=16, heads=2))


def test_windowed_rows_list_few_blocks() -> None:
    step = make(Case([Row(1000, 1)] * 2, window=20, block_size=16), "hpu")
    run(step)
    (plans,) = step.metadata.derived.values()
    assert step.metadata.shape.decode_blocks == 126
    assert plans.decode is not None
    assert plans.decode.groups.shape[0] == 6


def test_sink_counts_once_per_sequence() -> None:
    """Adding the sink to every block of a sequence changes this result by several per cent."""
    for blocks in (1, 2, 8, 64):
        check(Case([Row(16 * blocks - 1, 1)], sinks=True, seed=blocks))


def test_dominant_sink_leaves_little() -> None:
    step = make(Case([Row(100, 1), Row(0, 40)], sinks=True), "hpu")
    assert step.sinks is not None
    step.sinks.fill_(60.0)
    assert run(step)[: step.case.tokens].abs().max() < 1e-12


def test_large_scores_do_not_overflow() -> None:
    """Rows far apart in magnitude, in several blocks: each keeps its own maximum."""
    step = make(Case([Row(100, 1), Row(100, 1)]), "hpu")
    step.query[0] *= 1000
    step.query[1] *= 1e-3
    output = run(step)
    torch.testing.assert_close(output.double(), reference(step), rtol=0, atol=1e-4)


def test_padding_rows_and_unused_blocks_are_finite() -> None:
    """A graph for eight rows and many blocks, of which one row and one block are real."""
    case = Case([Row(3, 1)], padding_tokens=7, padding_rows=7, spare_blocks=20)
    check(case)


def test_only_padding_is_finite() -> None:
    step = make(Case([Row(3, 1)], padding_tokens=3, padding_rows=3), "hpu")
    step.metadata.seq_lens.zero_()
    step.metadata.query_start_loc.zero_()
    assert torch.isfinite(run(step)).all()


def test_long_prefill_in_slices() -> None:
    """Slices of queries leave out keys ahead of them; rows cross their borders."""
    check(Case([Row(0, n) for n in (100, 500, 300, 400)], padding_tokens=20, heads=2, width=16))


@pytest.mark.parametrize("soft_cap", [None, 5.0])
def test_slices_reach_back_as_far_as_a_sequence_can_be(soft_cap: float | None) -> None:
    case = Case([Row(0, 300)] * 4, heads=2, width=16, sinks=True, soft_cap=soft_cap)
    step = make(case, "hpu")
    step.metadata.longest = 300
    torch.testing.assert_close(run(step).double(), reference(step), rtol=0, atol=2e-6)


def test_writes_only_its_slots() -> None:
    """Every cached token survives, but for the null block where padding goes."""
    case = Case([Row(20, 1), Row(7, 30)], padding_tokens=5)
    step = make(case, "hpu")
    before = step.cache.cpu().clone()
    run(step)
    after = step.cache.cpu()
    blocks, heads, size, content = after.shape
    changed = (before != after).view(blocks, heads, 2, size, content // 2).any(-1)
    touched = changed.all(1).all(1).nonzero()
    slots = sorted(int(b) * size + int(o) for b, o in touched if b)
    wanted = sorted(step.metadata.slot_mapping.cpu()[: case.tokens].tolist())
    assert slots == wanted
    assert sorted(set(changed.nonzero()[:, 0].tolist())) == sorted({0, *(s // size for s in slots)})


def test_layer_that_shares_a_cache_reads_it() -> None:
    """Its own keys and values are not those of the layer whose cache it reads."""
    case = Case([Row(9, 1), Row(0, 33), Row(0, 50)])
    step = make(case, "hpu")
    run(step)
    impl = HpuAttentionImpl(
        case.heads, case.width, case.scale, case.kv_heads, kv_sharing_target_layer_name="first"
    )
    cache = step.cache.cpu().clone()
    output = torch.empty_like(step.query)
    junk = torch.full_like(step.key, 9.0)
    step.metadata.reset()
    impl.forward(None, step.query, junk, junk, step.cache, step.metadata, output)
    torch.testing.assert_close(output.cpu().double(), reference(step), rtol=0, atol=2e-6)
    assert torch.equal(step.cache.cpu(), cache)


def test_blocks_of_several_layers_side_by_side() -> None:
    """A layout with the block outermost leaves other layers' pages between a layer's blocks."""
    case = Case([Row(40, 1), Row(20, 30)])
    step = make(case, "hpu")
    apart = torch.zeros((step.cache.shape[0], 3, *step.cache.shape[1:]), device="hpu")
    apart[:, 1] = step.cache
    step.cache = apart[:, 1]
    torch.testing.assert_close(run(step).double(), reference(step), rtol=0, atol=2e-6)
    assert not apart[:, 0].any()
    assert not apart[:, 2].any()


def test_reset_follows_the_tensors() -> None:
    """The same metadata serves the next step once its tensors have moved on."""
    case = Case([Row(30, 1), Row(12, 1)], spare_blocks=2)
    step, later = make(case, "hpu"), make(Case([Row(31, 1), Row(44, 1)], seed=1), "hpu")
    run(step)
    width = min(step.metadata.block_table.shape[1], later.metadata.block_table.shape[1])
    step.metadata.block_table[:, :width].copy_(later.metadata.block_table[:, :width])
    step.metadata.seq_lens.copy_(later.metadata.seq_lens)
    step.metadata.slot_mapping.copy_(later.metadata.slot_mapping)
    step.metadata.reset()
    later.metadata = step.metadata
    torch.testing.assert_close(run(later).double(), reference(later), rtol=0, atol=2e-6)


def test_shapes_follow_the_key_alone() -> None:
    """Steps of one key differ in values, never in the shape of a tensor."""

    def shapes(rows: list[Row], padding_rows: int, padding_tokens: int) -> list:
        case = Case(rows, padding_rows=padding_rows, padding_tokens=padding_tokens, window=24)
        step = make(case, "hpu")
        step.metadata.shape = type(step.metadata.shape)(24, 4, 1, 12, True, 12)
        step.metadata.block_table = torch.nn.functional.pad(
            step.metadata.block_table, (0, 8 - step.metadata.block_table.shape[1])
        )
        run(step)
        (plans,) = step.metadata.derived.values()
        assert plans.rows is not None
        assert plans.decode is not None
        assert plans.prefill is not None
        tensors = (plans.rows, *plans.decode, *plans.prefill)
        return [tuple(t.shape) for t in tensors if t is not None]

    first = shapes([Row(60, 1), Row(10, 20)], 3, 3)
    assert first == shapes([Row(0, 1), Row(5, 1), Row(70, 1), Row(30, 12)], 1, 9)
    assert first == shapes([Row(40, 2), Row(3, 2), Row(0, 2)], 2, 18)


def test_profile_run_gives_zeros() -> None:
    impl = HpuAttentionImpl(2, 16, 0.25)
    query = torch.ones(3, 2, 16, device="hpu")
    output = torch.full_like(query, 7.0)
    impl.forward(None, query, query, query, torch.empty(0, device="hpu"), None, output)
    assert not output.any()
