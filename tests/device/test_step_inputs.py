"""A step's inputs, derived on the device, against plain loops over its rows."""

from types import SimpleNamespace

import habana_frameworks.torch  # noqa: F401
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vllm_hpu.kernels import register

register()

from vllm.v1.worker.gpu.buffer_utils import StagedWriteTensor, UvaBackedTensor  # noqa: E402

from vllm_hpu.kernels.staged_writes import scatter_many  # noqa: E402
from vllm_hpu.step.inputs import (  # noqa: E402
    CacheTables,
    Known,
    RowInputs,
    TokenInputs,
    derive_inputs,
)

ROWS, DUMP, LENGTH, BLOCK, PADDED = 5, 4, 32, 4, 24


def ints(values, dtype=torch.int32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device="hpu")


def derive(
    states: list[int],
    lengths: list[int],
    computed: list[int],
    total: list[int],
    drafts: list[int],
    width: int,
) -> SimpleNamespace:
    """The inputs of a step, and the tables they were made of; the second group has no slots."""
    source = torch.Generator().manual_seed(0)
    token_ids = torch.randint(1, 100, (ROWS, LENGTH), generator=source, dtype=torch.int32)
    blocks = torch.randint(1, 50, (ROWS, LENGTH // BLOCK), generator=source, dtype=torch.int32)
    proposed = torch.randint(-1, 100, (ROWS, width - 1), generator=source)
    missing = ROWS - len(states)
    starts = np.cumsum([0, *lengths, *[0] * missing])
    rows = RowInputs(
        ints([0] * ROWS, torch.int64),
        ints([0] * (ROWS + 1)),
        ints([0] * ROWS),
        ints([0] * ROWS),
        ints([0] * ROWS * width, torch.int64),
    )
    tokens = TokenInputs(
        ints([7] * PADDED), ints([7] * PADDED, torch.int64), ints([False] * PADDED, torch.bool)
    )
    tables = CacheTables(
        [blocks.to("hpu"), blocks.to("hpu")],
        [torch.zeros_like(blocks, device="hpu") for _ in range(2)],
        torch.zeros(2, PADDED, dtype=torch.int64, device="hpu"),
        (BLOCK, 0),
    )
    derive_inputs(
        ints([*states, *[DUMP] * missing, *starts, *[1 + n for n in drafts], *[1] * missing]),
        Known(
            ints(computed),
            ints(total),
            token_ids.to("hpu"),
            proposed.to("hpu") if width > 1 else None,
        ),
        rows,
        tokens,
        tables,
    )
    return SimpleNamespace(
        rows=rows,
        tokens=tokens,
        tables=tables,
        token_ids=token_ids,
        proposed=proposed,
        blocks=blocks,
        starts=starts,
    )


@st.composite
def steps(draw):
    """Rows of some new tokens, of which the last may be drafts."""
    width = draw(st.sampled_from([1, 3]))
    states = draw(st.permutations(range(DUMP)))[: draw(st.integers(0, DUMP))]
    drafts = [draw(st.integers(0, width - 1)) for _ in states]
    lengths = [draw(st.integers(1 + count, 6)) for count in drafts]
    computed = [draw(st.integers(0, LENGTH - 6)) for _ in range(DUMP)]
    # A row with drafts computes all it has; one without may have more of its prompt.
    total = [LENGTH] * DUMP
    for state, length, count in zip(states, lengths, drafts, strict=True):
        if count:
            total[state] = computed[state] + length - count
    return list(states), lengths, [*computed, 0], [*total, 0], drafts, width


@given(steps())
def test_inputs_are_those_of_a_loop(step):
    states, lengths, computed, total, drafts, width = step
    got = derive(*step)
    ids, positions, slots = [], [], []
    for state, length in zip(states, lengths, strict=True):
        for position in range(computed[state], computed[state] + length):
            ahead = position - total[state]
            token = got.token_ids[state, position] if ahead < 0 else got.proposed[state, ahead]
            ids.append(max(0, int(token)))
            positions.append(position)
            block = int(got.blocks[state, position // BLOCK])
            slots.append(block * BLOCK + position % BLOCK)
    real, missing = len(ids), ROWS - len(states)
    assert got.tokens.input_ids.tolist()[:real] == ids
    assert got.tokens.positions.tolist() == positions + [0] * (PADDED - real)
    assert got.tokens.is_padding.tolist() == [False] * real + [True] * (PADDED - real)
    assert got.tables.slots.tolist() == [slots + [-1] * (PADDED - real), [-1] * PADDED]
    assert got.rows.state.tolist() == states + [DUMP] * missing
    assert got.rows.query_start_loc.tolist() == got.starts.tolist()
    ends = [computed[state] + length for state, length in zip(states, lengths, strict=True)]
    assert got.rows.seq_lens.tolist() == ends + [0] * missing
    logits = [1 + count for count in drafts] + [1] * missing
    assert got.rows.logits.tolist() == logits
    places = got.rows.logit_token.view(ROWS, width).tolist()
    for row, (end, count) in enumerate(zip(got.starts[1:], logits, strict=True)):
        last = max(0, end - 1)
        first = max(0, end - count)
        assert places[row] == [min(first + place, last) for place in range(width)]
    for table in got.tables.rows:
        assert torch.equal(table.cpu(), got.blocks[states + [DUMP] * missing])


@pytest.mark.parametrize("writes", [1, 8, 9, 20, 1500])
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
@pytest.mark.parametrize("often", [False, True])
def test_staged_writes_land_in_their_places_few_or_many(writes, dtype, often):
    tensor = StagedWriteTensor((1504, 6), dtype=dtype, device=torch.device("hpu"))
    if often:
        scatter_many(tensor)
    expected = torch.zeros(1504, 6, dtype=dtype)
    for index in range(writes):
        values = [1.5 + index, 2.0 + index] if dtype.is_floating_point else [1 + index, 2 + index]
        tensor.stage_write(index, index % 4, values)
        expected[index, index % 4 : index % 4 + 2] = torch.tensor(values, dtype=dtype)
    tensor.apply_write()
    assert torch.equal(tensor.gpu.cpu(), expected)
    assert not tensor._staged_write_indices


def test_a_tensor_behind_the_host_stays_where_it_is_and_is_sent_when_changed():
    tensor = UvaBackedTensor(4, dtype=torch.int32)
    place = tensor.copy_to_uva().data_ptr()
    for value in (3, 5, 5):
        tensor.np[1] = value
        assert tensor.copy_to_uva().data_ptr() == place
        assert tensor.gpu.tolist() == [0, value, 0, 0]
