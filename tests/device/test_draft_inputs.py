"""Inputs of a draft model's forwards, derived on the device, against plain loops over the rows."""

from types import SimpleNamespace

import habana_frameworks.torch  # noqa: F401
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vllm_hpu.kernels import register

register()

from vllm.v1.attention.backends.utils import PAD_SLOT_ID  # noqa: E402

from vllm_hpu.spec_decode.draft_inputs import (  # noqa: E402
    DraftTokens,
    TargetRows,
    derive_first,
    derive_next,
)

ROWS, DUMP, LENGTH, BLOCK = 5, 4, 32, 4


def ints(values, dtype=torch.int32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device="hpu")


def random_rows(source: torch.Generator, lengths: list[int], seq_lens, rejected) -> TargetRows:
    """Rows in request states 0, 1, ...; what is left pads with the dump row."""
    missing = ROWS - len(lengths)
    starts = torch.tensor([0, *lengths, *[0] * missing]).cumsum(0)
    return TargetRows(
        state=ints([*range(len(lengths)), *[DUMP] * missing], torch.int64),
        query_start_loc=starts.to(torch.int32).to("hpu"),
        seq_lens=ints([*seq_lens, *[0] * missing]),
        rejected=ints([*rejected, *[0] * missing]),
        token_ids=torch.randint(1, 100, (ROWS, LENGTH), generator=source).to(torch.int32).to("hpu"),
        tables=[
            torch.randint(1, 50, (ROWS, LENGTH // BLOCK), generator=source)
            .to(torch.int32)
            .to("hpu"),
            torch.zeros(ROWS, 1, dtype=torch.int32, device="hpu"),
        ],
        block_sizes=(BLOCK, 0),
    )


def empty(tokens: int, rows: int) -> DraftTokens:
    return DraftTokens(
        ints([7] * tokens),
        ints([7] * tokens, torch.int64),
        ints([7] * (rows + 1)),
        ints([7] * rows),
        ints([[7] * tokens] * 2, torch.int64),
    )


def on_host(tensors) -> SimpleNamespace:
    return SimpleNamespace(
        **{name: value.tolist() for name, value in tensors._asdict().items() if value is not None}
    )


def slot_of(table: list[int], position: int) -> int:
    return table[position // BLOCK] * BLOCK + position % BLOCK


row = st.tuples(st.integers(1, 5), st.integers(0, 20), st.integers(0, 4))


@pytest.mark.parametrize(("ahead", "extra"), [(1, 0), (0, 1)], ids=["head", "model"])
@given(chosen=st.lists(row, min_size=0, max_size=4), seed=st.integers(0, 9))
def test_first_forward(ahead, extra, chosen, seed):
    """Every accepted token at its place, then the newest one where the drafter reads it."""
    lengths = [length for length, _, _ in chosen]
    seq_lens = [before + length for length, before, _ in chosen]
    rejected = [min(drafts, length - 1) for length, _, drafts in chosen]
    rows = random_rows(torch.Generator().manual_seed(seed), lengths, seq_lens, rejected)
    tokens = sum(lengths) + extra * ROWS + 3
    draft, last = empty(tokens, ROWS), ints([7] * ROWS, torch.int64)
    derive_first(rows, draft, last, ahead, extra, LENGTH)
    found = on_host(draft)
    ids, table = rows.token_ids.tolist(), rows.tables[0].tolist()
    place = 0
    for number, (length, before, _) in enumerate(chosen):
        assert found.query_start_loc[number] == place
        assert found.seq_lens[number] == before + length + extra
        read = length + extra
        for offset in range(read):
            position = before + offset
            assert found.positions[place + offset] == position
            assert found.slots[0][place + offset] == slot_of(table[number], position)
            assert found.slots[1][place + offset] == PAD_SLOT_ID
            assert found.input_ids[place + offset] == ids[number][position + ahead]
        # The place whose result predicts what follows the newest token.
        assert last.tolist()[number] == place + read - 1 - rejected[number]
        place += read
    assert found.query_start_loc[len(chosen) :] == [place] * (ROWS + 1 - len(chosen))
    assert found.slots[0][place:] == [PAD_SLOT_ID] * (tokens - place)


@given(chosen=st.lists(row, min_size=1, max_size=4), seed=st.integers(0, 9))
def test_next_forward(chosen, seed):
    """One token per row behind the last one; padding rows have no length and no slot."""
    lengths = [length for length, _, _ in chosen]
    seq_lens = [before + length for length, before, _ in chosen]
    rows = random_rows(torch.Generator().manual_seed(seed), lengths, seq_lens, [0] * len(chosen))
    count = ROWS - 1
    draft = empty(count, count)
    previous = [*seq_lens, *[0] * (count - len(chosen))]
    drafts = list(range(11, 11 + count))
    derive_next(rows, draft, ints(drafts, torch.int64), ints(previous, torch.int64), LENGTH)
    found, table = on_host(draft), rows.tables[0].tolist()
    assert found.input_ids == drafts
    for number in range(count):
        real = number < len(chosen)
        position = previous[number] + 1
        assert found.positions[number] == (position if real else 0)
        assert found.seq_lens[number] == (position + 1 if real else 0)
        expected = slot_of(table[number], position) if real else PAD_SLOT_ID
        assert found.slots[0][number] == expected


def test_nothing_behind_the_context():
    rows = random_rows(torch.Generator().manual_seed(0), [1], [LENGTH], [0])
    draft = empty(1, 1)
    derive_next(rows, draft, ints([5], torch.int64), ints([LENGTH - 1], torch.int64), LENGTH)
    found = on_host(draft)
    assert found.positions == [LENGTH - 1]
    assert found.seq_lens == [LENGTH]
