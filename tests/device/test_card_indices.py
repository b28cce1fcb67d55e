"""Indices outside of a tensor: refused, or with GAUDI_EMULATOR_INDICES=card as on a card."""

from collections.abc import Callable, Iterator

import habana_frameworks.torch  # noqa: F401
import pytest
import torch
from gaudi_emulator import _C, config

from tests.device.conftest import emulated_only, run_python

pytestmark = emulated_only

ROWS, COLUMNS = 4, 3
X = torch.arange(1.0, ROWS * COLUMNS + 1).reshape(ROWS, COLUMNS)
ROWS_OF = torch.tensor([1, 7, 0, -9])  # the second and the last lie outside
SOURCE = torch.arange(100.0, 100 + 4 * COLUMNS).reshape(4, COLUMNS)


@pytest.fixture
def as_on_a_card() -> Iterator[None]:
    _C.set_card_indices(True)
    yield
    _C.set_card_indices(False)


def rows_read() -> torch.Tensor:
    """The rows that ROWS_OF names, by definition: what lies outside reads 0."""
    rows = [X[i] if 0 <= i < ROWS else torch.zeros(COLUMNS) for i in ROWS_OF.tolist()]
    return torch.stack(rows)


def rows_written(change: Callable[[torch.Tensor, int, int], None]) -> torch.Tensor:
    """X after ``change(x, row, place in ROWS_OF)`` for every row that exists."""
    x = X.clone()
    for place, row in enumerate(ROWS_OF.tolist()):
        if 0 <= row < ROWS:
            change(x, row, place)
    return x


def put(x: torch.Tensor, row: int, place: int) -> None:
    x[row] = SOURCE[place]


def add(x: torch.Tensor, row: int, place: int) -> None:
    x[row] += SOURCE[place]


def largest(x: torch.Tensor, row: int, place: int) -> None:
    x[row] = torch.maximum(x[row], SOURCE[place])


def fill(x: torch.Tensor, row: int, place: int) -> None:
    x[row] = -1.0


READS = {
    "index_select": lambda x, i: x.index_select(0, i),
    "gather": lambda x, i: x.gather(0, i[:, None].expand(-1, COLUMNS)),
    "embedding": lambda x, i: torch.nn.functional.embedding(i, x),
    "index": lambda x, i: x[i],
    "take": lambda x, i: x.take(i[:, None] * COLUMNS + torch.arange(COLUMNS).to(i.device)),
    "plain_index": lambda x, i: torch.ops.hpu.plain_index(x, [i]),
}
WRITES = {
    "index_copy": (lambda x, i, s: x.index_copy(0, i, s), put),
    "index_copy_": (lambda x, i, s: x.index_copy_(0, i, s), put),
    "index_add": (lambda x, i, s: x.index_add(0, i, s), add),
    "index_add_": (lambda x, i, s: x.index_add_(0, i, s), add),
    "index_reduce_": (lambda x, i, s: x.index_reduce_(0, i, s, "amax"), largest),
    "scatter": (lambda x, i, s: x.scatter(0, i[:, None].expand(-1, COLUMNS), s), put),
    "scatter_": (lambda x, i, s: x.scatter_(0, i[:, None].expand(-1, COLUMNS), s), put),
    "scatter_add_": (lambda x, i, s: x.scatter_add_(0, i[:, None].expand(-1, COLUMNS), s), add),
    "scatter_reduce": (
        lambda x, i, s: x.scatter_reduce(0, i[:, None].expand(-1, COLUMNS), s, "amax"),
        largest,
    ),
    "index_put": (lambda x, i, s: x.index_put((i,), s), put),
    "index_put_": (lambda x, i, s: x.index_put_((i,), s, accumulate=True), add),
    "setitem": (lambda x, i, s: x.__setitem__(i, s), put),
    "index_fill_": (lambda x, i, s: x.index_fill_(0, i, -1.0), fill),
    "put_": (
        lambda x, i, s: x.put_(i[:, None] * COLUMNS + torch.arange(COLUMNS).to(i.device), s),
        put,
    ),
}


@pytest.mark.parametrize("name", READS)
def test_reads_outside_give_zero(as_on_a_card, name):
    out = READS[name](X.to("hpu"), ROWS_OF.to("hpu"))
    assert torch.equal(out.cpu(), rows_read())


@pytest.mark.parametrize("name", WRITES)
def test_writes_outside_are_dropped(as_on_a_card, name):
    write, change = WRITES[name]
    x = X.to("hpu")
    out = write(x, ROWS_OF.to("hpu"), SOURCE.to("hpu"))
    expected = rows_written(change)
    if out is not None:
        assert torch.equal(out.cpu(), expected)
        assert out.is_contiguous()
    in_place = name.endswith("_") or out is None
    assert torch.equal(x.cpu(), expected if in_place else X)
    assert in_place is (out is None or out.data_ptr() == x.data_ptr())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_every_type_and_axes_other_than_the_first(as_on_a_card, dtype):
    x = X.to(dtype).to("hpu")
    out = x.index_select(1, torch.tensor([2, 3], dtype=torch.int32, device="hpu")).cpu()
    assert torch.equal(out[:, 0].float(), X.to(dtype)[:, 2].float())
    assert (out[:, 1].float() == 0).all()


def test_a_list_of_indices(as_on_a_card):
    x = X.to("hpu")
    rows = torch.tensor([-1, 1, 4], device="hpu")
    columns = torch.tensor([-1, 3, 0], device="hpu")
    assert x[rows, columns].tolist() == [12.0, 0.0, 0.0]
    assert x[:, columns].tolist() == [[row[2], 0.0, row[0]] for row in X.tolist()]
    x[rows, columns] = 50.0
    assert x.sum().item() == X.sum().item() - 12 + 50


def test_indices_inside_are_pytorchs(as_on_a_card):
    x = X.to("hpu")
    assert x[torch.tensor([-1, 0], device="hpu")].tolist() == [X[-1].tolist(), X[0].tolist()]
    mask = torch.tensor([True, False, False, True], device="hpu")
    assert x[mask].tolist() == [X[0].tolist(), X[3].tolist()]


def test_a_graph_decides_when_it_runs(as_on_a_card):
    """The indices of the capture lie inside, those of the replay do not."""
    x, rows = X.to("hpu"), torch.tensor([0, 1], device="hpu")
    target, read = torch.zeros(2, 3, device="hpu"), torch.zeros(2, 3, device="hpu")
    graph = _C.Graph()
    graph.capture_begin()
    read.copy_(x.index_select(0, rows))
    target.index_copy_(0, rows, read + 1)
    graph.capture_end()
    target.zero_()  # the capture has computed, too
    rows.copy_(torch.tensor([3, 1]))
    graph.replay()
    torch.hpu.synchronize()
    assert read.tolist() == X[[3, 1]].tolist()
    assert target.tolist() == [[0.0] * 3, (X[1] + 1).tolist()]
    rows.copy_(torch.tensor([5, 0]))
    graph.replay()
    assert read.tolist() == [[0.0] * 3, X[0].tolist()]
    assert target[0].tolist() == (X[0] + 1).tolist()


@pytest.mark.parametrize("name", [*READS, *WRITES])
def test_the_default_is_to_refuse(name):
    x, rows, source = X.to("hpu"), ROWS_OF.to("hpu"), SOURCE.to("hpu")
    call = READS[name] if name in READS else lambda x, i: WRITES[name][0](x, i, source)
    with pytest.raises((IndexError, RuntimeError), match=r"(?i)out of (range|bounds)|index"):
        call(x, rows)


def test_the_variable_decides():
    assert config.read({}).indices == "strict"
    with pytest.raises(ValueError, match=r"GAUDI_EMULATOR_INDICES='loose'.*STRICT, CARD"):
        config.read({"GAUDI_EMULATOR_INDICES": "loose"})
    done = run_python(
        "import habana_frameworks.torch, torch\n"
        "print(torch.ones(2, device='hpu')[torch.tensor([5], device='hpu')].item())",
        GAUDI_EMULATOR_INDICES="card",
    )
    assert done.stdout.strip() == "0.0", done.stderr
