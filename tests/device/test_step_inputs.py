"""A step's inputs, derived on the device, against plain loops over its rows."""

from types import SimpleNamespace

import habana_frameworks.torch  # noqa: F401
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vllm_hpu.runner.kernels import register

register()

from vllm.v1.worker.gpu.buffer_utils import StagedWriteTensor, UvaBackedTensor  # noqa: E402

from vllm_hpu.runner.step_inputs import (  # noqa: E402
    CacheTables,
    RowInputs,
    TokenInputs,
    derive_inputs,
)

ROWS, DUMP, LENGTH, BLOCK, PADDED = 5, 4, 32, 4, 24


def ints(values, dtype=torch.int32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device="hpu")


def derive(states: list[int], lengths: list[int], computed: list[int]) -> SimpleNamespace:
    """The inputs of a step, and the tables they were made of; the second group has no slots."""
    source = torch.Generator().manual_seed(0)
    token_ids = torch.randint(1, 100, (ROWS, LENGTH), generator=source, dtype=torch.int32)
    blocks = torch.randint(1, 50, (ROWS, LENGTH // BLOCK), generator=source, dtype=torch.int32)
    missing = ROWS - len(states)
    starts = np.cumsum([0, *lengths, *[0] * missing])
    rows = RowInputs(
        ints([0] * ROWS, torch.int64),
        ints([0] * (ROWS + 1)),
        ints([0] * ROWS),
        ints([0] * ROWS, torch.int64),
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
        ints([*states, *[DUMP] * missing, *starts]),
        ints(computed),
        token_ids.to("hpu"),
        rows,
        tokens,
        tables,
    )
    return SimpleNamespace(
        rows=rows, tokens=tokens, tables=tables, token_ids=token_ids, blocks=blocks, starts=starts
    )


@st.composite
def steps(draw):
    states = draw(st.permutations(range(DUMP)))[: draw(st.integers(0, DUMP))]
    lengths = [draw(st.integers(1, 6)) for _ in states]
    computed = [draw(st.integers(0, LENGTH - 6)) for _ in range(DUMP)]
    return list(states), lengths, [*computed, 0]


@given(steps())
def test_inputs_are_those_of_a_loop(step):
    states, lengths, computed = step
    got = derive(*step)
    ids, positions, slots = [], [], []
    for state, length in zip(states, lengths, strict=True):
        for position in range(computed[state], computed[state] + length):
            ids.append(int(got.token_ids[state, position]))
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
    last = (got.starts[1:] - 1).clip(min=0)
    assert got.rows.last_token.tolist() == last.tolist()
    for table in got.tables.rows:
        assert torch.equal(table.cpu(), got.blocks[states + [DUMP] * missing])


@pytest.mark.parametrize("writes", [1, 8, 9, 20])
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
def test_staged_writes_land_in_their_places_few_or_many(writes, dtype):
    tensor = StagedWriteTensor((32, 6), dtype=dtype, device=torch.device("hpu"))
    expected = torch.zeros(32, 6, dtype=dtype)
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
