"""Streams as queues with threads, and detectors of missing synchronisation on seeded mistakes."""

from collections.abc import Callable, Iterator

import pytest
from gaudi_emulator import config

from .conftest import ON_CARD
from .stream_process import StreamProcess

pytestmark = pytest.mark.skipif(ON_CARD, reason="configures the emulator")

MODES = ["immediate", "async", "late"]


@pytest.fixture(scope="module")
def device() -> Iterator[Callable[[str], StreamProcess]]:
    """Devices by their schedule, each with the detector on, which raises."""
    running: dict[str, StreamProcess] = {}

    def get(streams: str) -> StreamProcess:
        if streams not in running:
            running[streams] = StreamProcess(streams)
        return running[streams]

    yield get
    for process in running.values():
        process.stop()


RIGHT = """
graph, out = slow_graph()
pinned = torch.empty(4, pin_memory=True)
copied, begun = torch.hpu.Event(enable_timing=True), torch.hpu.Event(enable_timing=True)
for _ in range(3):
    begun.record()
    graph.replay()
    with torch.hpu.stream(side):
        side.wait_stream(torch.hpu.default_stream())
        pinned.copy_(out, non_blocking=True)
        copied.record(side)
    copied.synchronize()
    assert copied.query()
    print(pinned.tolist())
    assert begun.elapsed_time(copied) > 0
    torch.hpu.current_stream().wait_stream(side)
source = torch.full((4,), 7.0, pin_memory=True)
out.copy_(source, non_blocking=True)
print((out + 1).tolist())
print(out.to("cpu", non_blocking=False).tolist(), out.to(torch.bfloat16).tolist())
"""


def test_the_host_does_not_wait_for_a_replay(device):
    code = """
graph, out = slow_graph()
for mode in ("submit", "whole"):
    begun = time.perf_counter()
    graph.replay()
    if mode == "whole":
        torch.hpu.synchronize()
    print(time.perf_counter() - begun)
"""
    submit, whole = map(float, device("async").run(code))
    assert submit < whole / 3


READS = [
    "torch.ones(4, pin_memory=True).copy_(out, non_blocking=True)",
    "torch.ones(4).copy_(out, non_blocking=True)",
    "out.to('cpu', non_blocking=True)",
]


@pytest.mark.parametrize("streams", ["async", "late"])
def test_a_host_that_reads_before_the_copy_is_done_sees_poison(device, streams):
    code = "graph, out = slow_graph()\n" + "\n".join(
        f"graph.replay()\nhost = {read}\n"
        "print(host.isnan().all().item(), torch.hpu.current_stream().query())\n"
        "torch.hpu.synchronize()\nprint(host.tolist())"
        for read in READS
    )
    lines = device(streams).run(code)
    assert lines[0::2] == ["True False"] * len(READS)
    assert lines[1::2] == [str([float(n)] * 4) for n in range(2, 2 + len(READS))]


SEEDED = {
    "read of what another stream writes": (
        "y = x * 2\nwith torch.hpu.stream(side):\n    y + 1",
        "aten::add.Tensor on stream 1 of hpu:0 reads memory that aten::mul.Tensor",
    ),
    "write over what another stream reads": (
        "with torch.hpu.stream(side):\n    side.wait_stream(torch.hpu.default_stream())\n"
        "    y = x * 2\nx.zero_()",
        "aten::zero_ on the default stream of hpu:0 writes memory that aten::mul.Tensor",
    ),
    "read of a replay's result": (
        "graph, out = slow_graph()\ngraph.replay()\nwith torch.hpu.stream(side):\n    out + 1",
        "reads memory that a graph's replay on the default stream",
    ),
    "replay over what another stream reads": (
        "graph, out = slow_graph()\nwith torch.hpu.stream(side):\n    y = out + 1\ngraph.replay()",
        "a graph's replay on the default stream of hpu:0 writes memory that aten::add.Tensor",
    ),
    "compiled region over what another stream writes": (
        "region, y = doubling(x)\nx.add_(1)\nwith torch.hpu.stream(side):\n    region.run([x])",
        "a compiled region on stream 1 of hpu:0 reads memory that aten::add_",
    ),
    "read of a compiled region's result": (
        "region, y = doubling(x)\n(y,) = region.run([x])\nwith torch.hpu.stream(side):\n    y + 1",
        "aten::add.Tensor on stream 1 of hpu:0 reads memory that a compiled region on the default",
    ),
    "item of another stream's result": (
        "y = x.sum()\nwith torch.hpu.stream(side):\n    y.item()",
        "(item) on stream 1 of hpu:0 reads memory that aten::sum",
    ),
    "copy of another stream's result": (
        "y = x * 2\nwith torch.hpu.stream(side):\n    y.to('cpu', non_blocking=True)",
        "aten::_to_copy on stream 1 of hpu:0 reads memory that aten::mul.Tensor",
    ),
    "wait for an event recorded too early": (
        "early = torch.hpu.current_stream().record_event()\ny = x * 2\n"
        "with torch.hpu.stream(side):\n    side.wait_event(early)\n    y + 1",
        "aten::add.Tensor on stream 1 of hpu:0 reads memory that aten::mul.Tensor",
    ),
    "host writes to the source of a copy": (
        "pinned = torch.ones(4, pin_memory=True)\nx[:4].copy_(pinned, non_blocking=True)\n"
        "pinned.zero_()\ntorch.hpu.synchronize()",
        "the host changed pinned memory while aten::copy_ on the default stream",
    ),
    "memory freed while another stream uses it": (
        "y = x * 2\nside.wait_stream(torch.hpu.default_stream())\n"
        "with torch.hpu.stream(side):\n    z = y + 1\ndel y\ntorch.hpu.synchronize()",
        "was freed while aten::add.Tensor on stream 1",
    ),
}
X = "x = torch.ones(8, device='hpu')\n"


@pytest.mark.parametrize("mistake", SEEDED)
@pytest.mark.parametrize("streams", ["immediate", "late"])
def test_a_seeded_missing_synchronisation_is_caught(device, streams, mistake):
    code, text = SEEDED[mistake]
    _, failed = device(streams).attempt(X + code)
    assert "RuntimeError: missing synchronisation: " in failed
    assert text in failed


MENDED = """
x = torch.ones(8, device='hpu')
y = x * 2
side.wait_stream(torch.hpu.default_stream())
with torch.hpu.stream(side):
    z = y + 1
    y.record_stream(side)
    done = side.record_event()
del y
done.synchronize()
x.copy_(z)                                     # the host has waited
half = torch.zeros(8, device='hpu')
torch.hpu.synchronize()
half[:4].add_(1)
with torch.hpu.stream(side):
    half[4:].add_(2)                           # other bytes of the same memory
    polled = side.record_event()
while not polled.query():
    pass
print((half + x).tolist())
pinned = torch.ones(8, pin_memory=True)
x.copy_(pinned, non_blocking=True)
x.sum().item()                                 # a read waits as well
pinned.zero_()
torch.hpu.synchronize()
staged = torch.ones(8)
x.copy_(staged, non_blocking=True)             # not pinned: read at once
staged.zero_()
print(x.tolist())
"""


@pytest.mark.parametrize("streams", MODES)
def test_synchronised_work_is_right_and_no_mistake_under_every_schedule(device, streams):
    lines = device(streams).run(RIGHT + MENDED)
    values = [[float(n)] * 4 for n in (2, 3, 4, 8)]
    assert lines[:5] == [str(v) for v in values] + [f"{[7.0] * 4} {[7.0] * 4}"]
    assert lines[5:] == [str([4.0] * 4 + [5.0] * 4), str([1.0] * 8)]


@pytest.mark.parametrize("streams", ["async", "late"])
def test_a_compiled_region_runs_after_what_is_queued(device, streams):
    code = """
graph, out = slow_graph()
region, y = doubling(out)
graph.replay()
print(torch.hpu.current_stream().query(), region.run([out])[0].tolist())
"""
    assert device(streams).run(code) == [f"False {[4.0] * 4}"]


def test_a_mistake_may_be_logged_instead():
    code = X + "kept = []\nfor _ in range(3):\n    y = x * 2\n    kept.append(y)\n"
    code += "    with torch.hpu.stream(side):\n        y + 1\n"
    code += "print(gaudi_emulator.counters().missing_synchronisations)"
    with StreamProcess("async", "log") as process:
        assert process.run(code) == ["3"]
        written = process.stop()
    assert written.count("gaudi-emulator: missing synchronisation: aten::add.Tensor") == 1


def test_an_error_in_queued_work_surfaces_when_the_host_waits(device):
    code = """
index = torch.zeros(2, dtype=torch.long, device="hpu")
table, out = torch.ones(3, 2, device="hpu"), torch.empty(2, 2, device="hpu")
graph = Graph()
graph.capture_begin()
torch.index_select(table, 0, index, out=out)
graph.capture_end()
index.fill_(7)
graph.replay()
print("submitted")
for _ in range(2):
    try:
        torch.hpu.synchronize()
        print("fine")
    except (RuntimeError, IndexError) as error:
        print("raised", "index out of range" in str(error))
"""
    assert device("async").run(code) == ["submitted", "raised True", "fine"]


def test_a_tensor_lives_as_long_as_queued_work_needs_it(device):
    code = """
graph, out = slow_graph()
torch.hpu.synchronize()
before = torch.hpu.memory_allocated()
graph.replay()
big = torch.ones(1 << 20, device="hpu")
torch.hpu.synchronize()
graph.replay()
host = big.to("cpu", non_blocking=True)
del big, graph
assert torch.hpu.memory_allocated() >= before + (4 << 20)
torch.hpu.synchronize()
print(host.sum().item(), torch.hpu.memory_allocated() <= before)
"""
    assert device("late").run(code) == [f"{float(1 << 20)} True"]


def test_late_work_is_done_even_if_nobody_waits(device):
    code = """
graph, out = slow_graph()
pinned = torch.empty(4, pin_memory=True)
graph.replay()
pinned.copy_(out, non_blocking=True)
print(pinned.isnan().all().item())
begun = time.monotonic()
while pinned.isnan().any() and time.monotonic() - begun < 30:
    time.sleep(0.1)
print(pinned.tolist())
"""
    assert device("late").run(code) == ["True", str([2.0] * 4)]


def test_elapsed_time_needs_complete_events(device):
    code = """
graph, out = slow_graph()
begun, ended = (torch.hpu.Event(enable_timing=True) for _ in range(2))
begun.record()
graph.replay()
ended.record()
try:
    begun.elapsed_time(ended)
except RuntimeError as error:
    print("synchronize it first" in str(error))
ended.synchronize()
print(begun.elapsed_time(ended) > 1)
"""
    assert device("async").run(code) == ["True", "True"]


def test_a_seed_set_after_a_replay_does_not_change_its_draws(device):
    code = """
drawn = torch.empty(4, device="hpu")
graph, out = slow_graph()
random = Graph()
random.capture_begin()
drawn.uniform_()
random.capture_end()
torch.hpu.manual_seed(5)
graph.replay()
random.replay()
torch.hpu.manual_seed(6)
seeded = torch.Generator(device="hpu").manual_seed(5)
print(torch.equal(drawn.cpu(), torch.rand(4, device="hpu", generator=seeded).cpu()))
"""
    assert device("late").run(code) == ["True"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("GAUDI_EMULATOR_STREAMS", "sometimes"), ("GAUDI_EMULATOR_CHECK_STREAMS", "maybe")],
)
def test_settings_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name}='{value}': expected one of"):
        config.read({name: value})
