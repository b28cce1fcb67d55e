"""PT_HPU_PLACE_ON_CPU: operators named there run on the host, which is counted and listed."""

import json

import pytest
import torch
from gaudi_emulator import _C
from gaudi_emulator.graph import Graph
from habana_frameworks.torch.hpu import metrics

from .conftest import counted, emulated_only, run_python

pytestmark = emulated_only


@pytest.fixture
def place():
    yield _C.place_on_host
    _C.place_on_host([])


@pytest.mark.parametrize("name", ["add", "add.Tensor", "aten::add", "aten::add.Tensor"])
def test_an_operator_runs_on_the_host_and_is_counted(place, name):
    x, y = torch.ones(8, device="hpu"), torch.ones(8, device="hpu")
    place([name])
    with counted() as happened, metrics.metric_localcontext("cpu_fallback") as metric:
        z = x + y
        z * 2
    assert z.device == x.device
    assert happened.host_fallbacks == {"aten::add.Tensor": 1}
    assert happened.host_syncs == 1
    assert (happened.d2h_copies, happened.d2h_bytes) == (2, 64)
    assert (happened.h2d_copies, happened.h2d_bytes) == (1, 32)
    assert happened.eager_launches == 1, "the product"
    assert metric.stats() == [("TotalNumber", 1), ("FallbackOps", {"aten::add.Tensor": 1})]
    assert z.tolist() == [2] * 8


def test_other_names_change_nothing(place):
    place(["ad", "add_", "add.Scalar", "Tensor", "prims::add"])
    x = torch.ones(8, device="hpu")
    with counted() as happened:
        x + x
    assert not happened.host_fallbacks


def test_an_operator_that_the_card_lacks_may_be_placed(place):
    with torch.library._scoped_library("here", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CPU")
        x = torch.ones(2, device="hpu")
        with pytest.raises(NotImplementedError, match="here::twice' is not available"):
            torch.ops.here.twice(x)
        place(["here::twice"])
        with counted() as happened:
            y = torch.ops.here.twice(x)
        assert happened.host_fallbacks == {"here::twice": 1}
        assert y.device == x.device
        assert y.tolist() == [2, 2]


def test_a_graph_cannot_contain_one(place):
    place(["mul"])
    x, graph = torch.ones(2, device="hpu"), Graph()
    graph.capture_begin()
    with pytest.raises(RuntimeError, match=r"mul.Tensor' into a graph: PT_HPU_PLACE_ON_CPU puts"):
        x * 2
    graph.reset()


REPORTED = """
import torch, habana_frameworks.torch
x = torch.ones(4, device='hpu')
for _ in range(3):
    x = x.relu()
x.neg()
"""


def test_the_variable_and_the_report(tmp_path, capfd):
    from gaudi_emulator.cli import main

    traces = str(tmp_path / "traces")
    done = run_python(
        REPORTED, GAUDI_EMULATOR_TRACE=traces, PT_HPU_PLACE_ON_CPU="relu, neg,sigmoid"
    )
    assert done.returncode == 0, done.stderr
    assert main(["report", traces]) == 0
    assert "host fallbacks: 4 (aten::relu 3, aten::neg 1)\n" in capfd.readouterr().out
    assert main(["report", "--json", traces]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["host_fallbacks"] == {"aten::relu": 3, "aten::neg": 1}
    assert not any("relu" in group["name"] for group in report["launches"])
