"""The lazy mode gathers operators: what is in a graph, what ends it, when it is compiled."""

import json
import random
import threading

import gaudi_emulator
import habana_frameworks.torch as htorch
import pytest
import torch
import torch.distributed as dist
from gaudi_emulator import _C, faults, lazy_graphs
from gaudi_emulator.graph import Graph
from gaudi_emulator.operator_cost import Cost
from gaudi_emulator.roofline import peaks_of
from habana_frameworks.torch.hpu.metrics import metric_localcontext
from habana_frameworks.torch.internal import bridge_config
from habana_frameworks.torch.utils import internal

from .conftest import counted, emulated_only, run_python

pytestmark = emulated_only

mark_step = htorch.core.mark_step


@pytest.fixture(autouse=True)
def lazy(monkeypatch):
    """What a process gets that is started with PT_HPU_LAZY_MODE=1."""
    monkeypatch.setattr(internal._Mode, "lazy", True)
    lazy_graphs.gather(1 << 62)
    yield
    lazy_graphs.gather_nothing()


def card(*shape, dtype=torch.float32):
    """Ones that were made on the host: a copy, so that nothing is gathered."""
    return torch.ones(*shape, dtype=dtype).to("hpu")


def step(function, *inputs):
    """What the device counts while ``function`` runs and a step ends."""
    with counted() as happened:
        result = function(*inputs)
        mark_step()
    del result
    return happened


def usual(x, y):
    return torch.relu(x + y) * 2


def test_the_same_step_is_compiled_once_and_launched_each_time():
    x, y = card(3), card(3)
    with counted() as before, metric_localcontext("graph_compilation") as metric:
        result = usual(x, y)
    assert result.tolist() == [4, 4, 4], "values are there at once"
    mark_step()
    assert (before.launches, before.fused_ops, before.total_compilations) == (0, 3, 0)
    assert dict(metric.stats())["TotalNumber"] == 0
    gaudi_emulator.recipes.forget()
    with metric_localcontext("graph_compilation") as metric:
        first, again = step(usual, x, y), step(usual, card(3), card(3))
    assert first.compilations == {"lazy_graph": 1}
    assert (again.compilations, again.recipe_hits) == ({}, {"memory": 1})
    for happened in (first, again):
        assert happened.lazy_launches == happened.launches == 1
        assert (happened.fused_ops, happened.eager_launches) == (3, 0)
    assert dict(metric.stats())["TotalNumber"] == 1
    assert gaudi_emulator.recent_compilations(1)[0].detail == "3 operators"


OTHERS = {
    "shape": (usual, lambda: (card(4), card(4))),
    "strides": (usual, lambda: (card(6)[::2], card(3))),
    "offset": (usual, lambda: (card(4)[1:], card(3))),
    "dtype": (usual, lambda: (card(3, dtype=torch.bfloat16), card(3))),
    "constant": (lambda x, y: torch.relu(x + y) * 3, lambda: (card(3), card(3))),
    "number of the host": (
        lambda x, y: torch.relu(x + y) * torch.tensor(2.5),
        lambda: (card(3), card(3)),
    ),
    "argument": (
        lambda x, y: torch.relu(torch.add(x, y, alpha=2)) * 2,
        lambda: (card(3), card(3)),
    ),
    "operator": (lambda x, y: torch.relu(x - y) * 2, lambda: (card(3), card(3))),
    "same tensor": (usual, lambda: (card(3),) * 2),
    "same memory": (usual, lambda: card(2, 3).unbind()),
    "data flow": (lambda x, y: (torch.relu(x + y), y * 2), lambda: (card(3), card(3))),
    "in place": (lambda x, y: torch.relu_(x + y) * 2, lambda: (card(3), card(3))),
    "length": (lambda x, y: usual(x, y) + 0, lambda: (card(3), card(3))),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_work_is_another_graph(other):
    function, make = OTHERS[other]
    inputs = make()
    step(usual, card(3), card(3))
    assert step(function, *inputs).compilations == {"lazy_graph": 1}
    assert step(function, *make()).compilations == {}


def test_addresses_never_show():
    """Whatever is freed and made between the operators, and whatever was there before."""
    chance = random.Random(0)
    held: list[torch.Tensor] = []

    def shuffle():
        for _ in range(chance.randrange(4)):
            if held and chance.random() < 0.5:
                held.pop(chance.randrange(len(held)))
            held.append(torch.empty(chance.choice([3, 3, 4, 300]), device="hpu"))

    x = card(3)
    with counted() as happened:
        for _ in range(50):
            for number in range(6):
                shuffle()
                temporary = x * number
                shuffle()
                other = temporary + x
                del temporary
            del other
            mark_step()
    assert happened.compilations == {"lazy_graph": 1}
    assert happened.lazy_launches == 50


def other_stream_is_set(x):
    torch.hpu.set_stream(torch.hpu.Stream())
    torch.hpu.set_stream(torch.hpu.default_stream())


def a_graph_is_captured(x):
    graph = Graph()
    graph.capture_begin()
    graph.capture_end()


def a_region_is_entered(x):
    with gaudi_emulator.launch_region():
        pass


def the_host_writes(x):
    x.copy_(torch.zeros(3))


CUTS = {
    "mark_step": lambda x: mark_step(),
    "mark_step of a device": lambda x: mark_step("hpu", sync=True),
    "iter_mark_step": lambda x: htorch.core.iter_mark_step(),
    "item": lambda x: x[0].item(),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "not waiting for the copy": lambda x: x.to("cpu", non_blocking=True),
    "copy into host memory": lambda x: torch.empty(3).copy_(x),
    "nonzero": lambda x: x.nonzero(),
    "equal": lambda x: torch.equal(x, x),
    "boolean mask": lambda x: x[x > 0],
    "host write": the_host_writes,
    "synchronize": lambda x: torch.hpu.synchronize(),
    "accelerator": lambda x: torch.accelerator.synchronize(),
    "stream": lambda x: torch.hpu.current_stream().synchronize(),
    "event": lambda x: torch.hpu.Event().record(),
    "another stream": other_stream_is_set,
    "question to another stream": lambda x: torch.hpu.Stream().query(),
    "capture": a_graph_is_captured,
    "region": a_region_is_entered,
    "another card": lambda x: x.to("hpu:1"),
    "compile-only": lambda x: _C.set_compile_only(False),
    "begin of a measurement": lambda x: gaudi_emulator.measure().__enter__(),
}


@pytest.mark.parametrize("cut", CUTS)
def test_what_ends_a_graph(cut):
    x = card(3)
    with counted() as happened:
        y = x + 1
        CUTS[cut](y)
    torch.hpu.synchronize()
    _C.observe(None)
    assert happened.lazy_launches == 1
    assert happened.compilations["lazy_graph"] == 1
    assert step(lambda: None).lazy_launches == 0, "nothing is left"


def test_operators_that_the_host_reads_are_in_the_graph():
    x = card(3)
    with counted() as happened:
        (x + 1).nonzero()
    assert (happened.lazy_launches, happened.fused_ops, happened.eager_launches) == (1, 2, 0)
    assert gaudi_emulator.recent_compilations(1)[0].detail == "2 operators"


def ordered_streams(x, y):
    event, side = torch.hpu.Event(), torch.hpu.Stream()
    event.record(side)
    event.wait()
    event.synchronize()


NO_CUTS = {
    "views": lambda x, y: y.view(1, 3).t()[1:],
    "memory": lambda x, y: (torch.empty(5, device="hpu"), torch.zeros(5, device="hpu")),
    "host to card": lambda x, y: torch.ones(4).to("hpu"),
    "host into an input": lambda x, y: x.copy_(torch.zeros(3)),
    "events of another stream": ordered_streams,
    "same stream": lambda x, y: torch.hpu.set_stream(torch.hpu.current_stream()),
    "question to the stream": lambda x, y: torch.hpu.current_stream().query(),
}


@pytest.mark.parametrize("other", NO_CUTS)
def test_what_does_not_end_a_graph(other):
    x = card(3)
    with counted() as happened:
        y = x + 1
        NO_CUTS[other](x, y)
    assert happened.launches == 0
    assert step(lambda: y * 2).lazy_launches == 1
    assert gaudi_emulator.recent_compilations(1)[0].detail == "2 operators"


def test_nothing_gathered_is_no_launch():
    mark_step()
    with counted() as happened:
        mark_step()
        torch.hpu.synchronize()
        card(3).view(1, 3)
    assert happened.launches == happened.total_compilations == 0


def test_copies_on_the_card_are_gathered():
    x, y = card(3), card(3)
    happened = step(lambda: (y.copy_(x), x.to(torch.bfloat16), x.clone()))
    assert (happened.lazy_launches, happened.fused_ops, happened.eager_launches) == (1, 3, 0)
    assert happened.d2d_copies == 3
    assert gaudi_emulator.recent_compilations(1)[0].detail == "3 operators"


def test_each_card_gathers_its_own_graph():
    x, y = card(3), torch.ones(3).to("hpu:1")
    happened = step(lambda: (x + 1, y + 1))
    assert happened.lazy_launches == 2
    assert (happened.total_compilations, happened.recipe_hits) == (1, {"memory": 1})


def test_captured_work_is_not_gathered():
    x = card(3)
    graph = htorch.hpu.HPUGraph()
    with counted() as happened:
        with htorch.hpu.graph(graph):
            y = x + 1
            mark_step()
            z = y * 2
        mark_step()
    assert (happened.lazy_launches, happened.captured_ops) == (0, 2)
    assert happened.compilations == {"graph_capture": 1}
    with counted() as happened:
        x.fill_(4)
        graph.replay()
        z + 1
        graph.replay()
        mark_step()
    assert (happened.lazy_launches, happened.graph_launches, happened.fused_ops) == (2, 2, 2)
    assert z.tolist() == [10, 10, 10]


def test_a_region_is_not_gathered():
    x = card(3)
    with counted() as happened, gaudi_emulator.launch_region():
        x.add_(1).mul_(2)
    assert (happened.region_launches, happened.fused_ops) == (1, 2)
    assert step(lambda: None).launches == 0


def test_what_runs_on_the_host_is_not_gathered():
    x = card(3)
    _C.place_on_host(["mul"])
    try:
        with counted() as happened:
            y = x + 1
            y * 2
        assert (happened.lazy_launches, happened.fused_ops) == (1, 1)
        assert happened.host_fallbacks == {"aten::mul.Tensor": 1}
    finally:
        _C.place_on_host([])
    assert step(lambda: None).launches == 0


def test_compile_only_mode_launches_nothing():
    x = card(3)
    with bridge_config.env_setting("PT_COMPILE_ONLY_MODE", True):
        happened = step(lambda: x + 1)
    assert happened.launches == happened.fused_ops == 0


def test_a_backward_pass_of_another_thread_is_part_of_the_graph():
    weight = card(3, 3).requires_grad_()
    x = card(2, 3)

    def train():
        weight.grad = None
        backward = threading.Thread(target=(x @ weight).square().sum().backward)
        backward.start()
        backward.join()

    first, again = step(train), step(train)
    assert weight.grad.tolist() == [[12.0] * 3] * 3
    assert first.lazy_launches == again.lazy_launches == 1
    assert (first.eager_launches, first.total_compilations) == (0, 1)
    assert again.total_compilations == 0


def test_threads_gather_into_one_graph():
    inputs = [card(3) for _ in range(4)]

    def work(x):
        for _ in range(200):
            x.add_(1)

    def run():
        threads = [threading.Thread(target=work, args=(x,)) for x in inputs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert step(run).lazy_launches == 1
    assert gaudi_emulator.recent_compilations(1)[0].detail == "800 operators"
    assert [x.tolist() for x in inputs] == [[201] * 3] * 4


def test_a_collective_ends_the_graph():
    dist.init_process_group("hccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        x = card(3)
        mark_step()
        with counted() as happened:
            dist.all_reduce(x + 1)
        assert happened.lazy_launches == 1
    finally:
        dist.destroy_process_group()


def test_a_limit_of_operators():
    x = card(3)
    lazy_graphs.gather(3)
    with counted() as happened:
        for number in range(7):
            x + number
    assert (happened.lazy_launches, happened.fused_ops) == (2, 7)
    assert step(lambda: None).lazy_launches == 1


def test_a_failed_compilation_reaches_the_program():
    x = card(3, 3).requires_grad_()

    class Reading(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient * gradient.sum().item()

    for read in ((x * 5).tolist, lambda: Reading.apply(x).sum().backward()):
        with faults.armed("compile:1:device_error"), pytest.raises(RuntimeError, match="injected"):
            read()
    mark_step()
    assert (x * 5)[0].tolist() == [5, 5, 5]


ADDITION = Cost(vector_flops=64, bytes=3 * 256)
PRODUCT = Cost(matrix_flops=2 * 8**3, bytes=3 * 256)


def test_a_gathered_graph_is_measured_as_one_launch():
    x = card(8, 8)
    x + x
    with gaudi_emulator.measure() as work:
        (x @ x) + x
    assert work.launches == {"lazy": 1}, "neither what was before, nor is anything left"
    assert work.cost == PRODUCT + ADDITION
    assert work.predicted_seconds == peaks_of("GAUDI3").predicted_seconds(PRODUCT + ADDITION)
    assert step(lambda: None).launches == 0


def test_trace_and_report_show_the_launch(tmp_path, capfd):
    from gaudi_emulator.cli import main

    x = card(8, 8)
    path = tmp_path / "trace.json"
    with counted() as happened, gaudi_emulator.trace(path):
        for _ in range(3):
            (x @ x) + x
            mark_step()
        x + x
    assert happened.lazy_launches == 4
    events = json.loads(path.read_text())
    launches = [e for e in events if e.get("cat") == "predicted"]
    assert [(e["args"]["kind"], e["args"]["operators"]) for e in launches] == [
        *[("lazy", 2)] * 3,
        ("lazy", 1),
    ]
    assert len({e["name"] for e in launches}) == 2
    assert sum(e.get("cat") == "compilation" for e in events) == happened.total_compilations == 2
    assert main(["report", "--json", str(path)]) == 0
    groups = json.loads(capfd.readouterr().out)["launches"]
    assert sorted((g["kind"], g["launches"], g["operators"]) for g in groups) == [
        ("lazy", 1, 1),
        ("lazy", 3, 6),
    ]


PROGRAM = """
import torch, habana_frameworks.torch as bridge, gaudi_emulator
x = torch.ones(4).to("hpu")
for rows in (1, 2, 3):
    x[:rows] * 2 + 1
    bridge.core.mark_step()
x - 1  # the end of the process launches nothing
done = gaudi_emulator.counters()
print(done.lazy_launches, done.eager_launches, done.total_compilations, done.recipe_hits["disk"])
"""


def run(**environment):
    done = run_python(PROGRAM, **environment)
    assert done.returncode == 0, done.stderr
    return [int(number) for number in done.stdout.split()]


def test_a_later_process_compiles_nothing(tmp_path):
    environment = {"PT_HPU_LAZY_MODE": "1", "PT_HPU_RECIPE_CACHE_CONFIG": str(tmp_path)}
    assert run(**environment) == [3, 0, 3, 0]
    assert [path.suffix for path in tmp_path.iterdir()] == [".recipe"] * 3
    assert run(**environment) == [3, 0, 0, 3]


def test_the_variables_of_a_process():
    assert run(PT_HPU_LAZY_MODE="0") == [0, 7, 0, 0]
    assert run(PT_HPU_LAZY_MODE="1", PT_HPU_MAX_COMPOUND_OP_SIZE="1")[:2] == [7, 0]
    assert run(PT_HPU_LAZY_MODE="1", PT_HPU_MAX_COMPOUND_OP_SIZE="2")[:2] == [3, 0]
    assert run(PT_HPU_LAZY_MODE="1", PT_HPU_MAX_COMPOUND_OP_SIZE="-1")[:2] == [3, 0]
