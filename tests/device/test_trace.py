"""Traces, `measure` and the report: what they say is what the device counts."""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from .conftest import ON_CARD, counted, emulated_only, run_python

pytestmark = emulated_only

if not ON_CARD:
    import gaudi_emulator
    from gaudi_emulator import recipes
    from gaudi_emulator.operator_cost import Cost
    from gaudi_emulator.roofline import peaks_of


def events_of(path: Path) -> list[dict]:
    """All of a finished trace, by a parser that is not ours."""
    return json.loads(path.read_text())


def captured_product():
    """A graph of one 8 x 8 product and one addition, and its input."""
    import habana_frameworks.torch as htorch

    x = torch.ones(8, 8, device="hpu")
    graph = htorch.hpu.HPUGraph()
    with htorch.hpu.graph(graph):
        y = x @ x + 1
    return graph, x, y


@pytest.fixture
def lazy(monkeypatch):
    from habana_frameworks.torch.utils import internal

    monkeypatch.setattr(internal._Mode, "lazy", True)


def run_everything(graph, x):
    graph.replay()
    graph.replay()
    with gaudi_emulator.launch_region():
        torch.relu(x @ x)
    x + x
    x.to(torch.bfloat16)
    host = torch.ones(16).to("hpu")
    host.cpu()
    x.sum().item()
    torch.hpu.synchronize()


PRODUCT = Cost(matrix_flops=2 * 8**3, bytes=3 * 256)


def test_measure_counts_graphs_regions_and_operators(lazy):
    graph, x, _ = captured_product()
    with gaudi_emulator.measure() as work:
        graph.replay()
    replay = PRODUCT + Cost(vector_flops=64, bytes=2 * 256)
    assert work.cost == replay
    assert work.launches == {"graph": 1}
    with gaudi_emulator.measure() as work:
        run_everything(graph, x)
    region = PRODUCT + Cost(vector_flops=64, bytes=2 * 256)
    addition = Cost(vector_flops=64, bytes=3 * 256)
    cast = Cost(vector_flops=64, bytes=256 + 128)
    total = Cost(vector_flops=64, bytes=256 + 4)
    assert work.cost == replay + replay + region + addition + cast + total
    assert work.launches == {"graph": 2, "region": 1, "operator": 3}
    assert work.copied_bytes == 128
    assert work.host_waits == 3, "two reads, one wait"
    launch = peaks_of("GAUDI3").launch_seconds
    assert work.engine_seconds["launch"] == pytest.approx(6 * launch)
    assert work.predicted_seconds > 6 * launch
    assert not work.unknown


def test_cost_of_a_graph_counts_what_a_replay_runs(lazy):
    """Views, results in place, results that live on and results that do not."""
    import habana_frameworks.torch as htorch
    from gaudi_emulator.observation import cost_of_graph

    x, total = torch.ones(4, 8, device="hpu"), torch.zeros(4, 4, device="hpu")
    graph = htorch.hpu.HPUGraph()
    with htorch.hpu.graph(graph):
        inner = torch.exp(x).view(8, 4)
        total.add_(inner.t() @ inner)
    expected = Cost(vector_flops=32, bytes=2 * 128)
    expected += Cost(matrix_flops=2 * 4 * 4 * 8, bytes=2 * 128 + 64)
    expected += Cost(vector_flops=16, bytes=3 * 64)
    assert cost_of_graph(graph) == expected


def test_sums_of_a_trace_are_the_counters(lazy, tmp_path):
    graph, x, _ = captured_product()
    path = tmp_path / "trace.json"
    with counted() as happened, gaudi_emulator.trace(path):
        run_everything(graph, x)
        recipes.forget()
        captured_product()[1].cpu()
    events = events_of(path)
    assert all({"ph", "name", "pid"} <= set(event) for event in events)
    spans = {}
    for event in events:
        if event["ph"] == "X":
            assert event["dur"] >= 0 <= event["ts"]
        spans.setdefault(event.get("cat"), []).append(event)
    assert len(spans["launch"]) == len(spans["predicted"]) == happened.launches
    assert len(spans["copy"]) == happened.h2d_copies + happened.d2h_copies
    assert sum(e["args"]["bytes"] for e in spans["copy"]) == happened.h2d_bytes + happened.d2h_bytes
    assert len(spans["host_sync"]) == happened.host_syncs
    assert len(spans["compilation"]) == happened.total_compilations == 1
    assert sum(e["args"]["us"] for e in spans["compilation"]) == sum(
        happened.compilation_us.values()
    )
    # The card's clock runs without gaps, from launch to launch and copy to copy.
    clock = 0.0
    for event in events:
        if event.get("cat") in ("predicted", "predicted copy"):
            assert event["ts"] == pytest.approx(clock)
            clock += event["dur"]
    names = [e["args"]["name"] for e in events if e["name"] == "process_name"]
    assert any("PREDICTED" in name for name in names)
    (counters,) = [e["args"] for e in events if e["name"] == "counters"]
    assert counters["graph_launches"] == 2


def test_nothing_is_observed_after_a_trace(tmp_path):
    from gaudi_emulator import _C

    with gaudi_emulator.trace(tmp_path / "a.json"), gaudi_emulator.measure():
        assert _C.observed()
    assert not _C.observed()
    size = (tmp_path / "a.json").stat().st_size
    torch.ones(2, device="hpu") + 1
    assert (tmp_path / "a.json").stat().st_size == size


class Reported(NamedTuple):
    """What `gaudi-emulator report` returned and printed."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def report(capfd):
    """The command, in this process; a program that it runs has its own."""
    from gaudi_emulator.cli import main

    def run(*arguments: str) -> Reported:
        code = main(["report", *arguments])
        return Reported(code, *capfd.readouterr())

    return run


PROGRAM = """
import torch, habana_frameworks.torch
x = torch.ones(8, 8, device="hpu")
run = torch.compile(lambda x: torch.relu(x @ x) + 1, backend="hpu_backend")
for _ in range(3):
    run(x)
print("sum", x.sum().item())
"""


def test_report_runs_a_program_and_reads_its_trace_again(report, tmp_path):
    folder, picture = tmp_path / "traces", tmp_path / "plot.png"
    ran = report("--keep", str(folder), "--plot", str(picture), "--", sys.executable, "-c", PROGRAM)
    assert ran.returncode == 0, ran.stderr
    assert "sum 64.0" in ran.stdout
    assert "PREDICTION for Gaudi 3" in ran.stdout
    assert "compilations: 1 (hpu_backend 1 in" in ran.stdout
    assert "host synchronisations: 1" in ran.stdout
    assert picture.stat().st_size > 1000
    again = report("--json", "--card", "GAUDI2", "--launch-us", "5", str(folder))
    assert again.returncode == 0, again.stderr
    facts = json.loads(again.stdout)
    assert facts["prediction_for"] == "Gaudi 2"
    (region,) = [group for group in facts["launches"] if group["kind"] == "region"]
    assert (region["launches"], region["operators"]) == (3, 9)
    assert region["matrix_flops"] == 3 * 2 * 8**3
    peaks = peaks_of("GAUDI2", 5)
    once = Cost(2 * 8**3, 0, 128, 3 * 256 + 2 * 256 + 2 * 256)
    assert region["predicted_ms"] == pytest.approx(3e3 * peaks.predicted_seconds(once))
    assert region["bound"] == "launch"


def test_the_trace_of_a_killed_process_can_be_read(report, tmp_path):
    code = (
        "import os, torch, gaudi_emulator; gaudi_emulator.activate()\n"
        "x = torch.ones(8, device='hpu')\n"
        "for _ in range(600): x + x\n"
        "os._exit(1)"
    )
    result = run_python(code, GAUDI_EMULATOR_TRACE=str(tmp_path))
    assert result.returncode == 1, result.stderr
    read = report(str(tmp_path))
    assert read.returncode == 0, read.stderr
    assert "1 of 1 processes did not end their trace" in read.stdout


def test_what_cannot_be_reported_says_why(report, tmp_path):
    (tmp_path / "other.json").write_text("{}")
    for arguments, words in (
        ([], "needs traces, or -- and a program"),
        ([str(tmp_path)], "GAUDI_EMULATOR_TRACE="),
        ([str(tmp_path / "other.json")], "is not a trace"),
        (["--", sys.executable, "-c", "pass"], "did not use the emulated device"),
    ):
        result = report(*arguments)
        assert result.returncode == 2
        assert words in result.stderr


def test_a_launch_overhead_that_makes_no_sense_is_refused():
    from gaudi_emulator import config

    assert config.read({"GAUDI_EMULATOR_LAUNCH_US": "2.5"}).launch_us == 2.5
    for text in ("-1", "soon", "nan"):
        with pytest.raises(ValueError, match="GAUDI_EMULATOR_LAUNCH_US"):
            config.read({"GAUDI_EMULATOR_LAUNCH_US": text})
