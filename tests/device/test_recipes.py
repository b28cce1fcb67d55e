"""Recipes: what is the same graph, what a later process finds on disk, what it costs to compile."""

import os
import random
import subprocess
import sys
import time

import pytest
import torch
from gaudi_emulator import config, recipes
from gaudi_emulator.graph import Graph

from .conftest import counted, emulated_only, run_python

pytestmark = emulated_only


def capture(function, *inputs):
    """What the device counted while ``function`` was captured."""
    graph = Graph()
    with counted() as happened, torch.no_grad():
        graph.capture_begin()
        result = function(*inputs)
        graph.capture_end()
    del result
    return happened


def ones(*shape, dtype=torch.float32):
    return torch.ones(*shape, dtype=dtype, device="hpu")


def test_the_same_work_on_other_tensors_is_known():
    first = capture(lambda x, y: (x + y) * 2, ones(3), ones(3))
    again = capture(lambda x, y: (x + y) * 2, ones(3), ones(3))
    assert first.compilations == {"graph_capture": 1}
    assert first.recipe_hits == {}
    assert again.compilations == {}
    assert again.recipe_hits == {"memory": 1}


OTHERS = {
    "shape": (lambda x, y: (x + y) * 2, lambda: (ones(4), ones(4))),
    "strides": (lambda x, y: (x + y) * 2, lambda: (ones(6)[::2], ones(3))),
    "dtype": (lambda x, y: (x + y) * 2, lambda: (ones(3, dtype=torch.bfloat16), ones(3))),
    "constant": (lambda x, y: (x + y) * 3, lambda: (ones(3), ones(3))),
    "argument": (lambda x, y: torch.add(x, y, alpha=2) * 2, lambda: (ones(3), ones(3))),
    "operator": (lambda x, y: (x - y) * 2, lambda: (ones(3), ones(3))),
    "same tensor": (lambda x, y: (x + x) * 2, lambda: (ones(3), ones(3))),
    "data flow": (lambda x, y: (x + y, x * 2)[1], lambda: (ones(3), ones(3))),
    "length": (lambda x, y: (x + y) * 2 + 0, lambda: (ones(3), ones(3))),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_work_is_another_recipe(other):
    capture(lambda x, y: (x + y) * 2, ones(3), ones(3))
    function, inputs = OTHERS[other]
    assert capture(function, *inputs()).compilations == {"graph_capture": 1}


def test_another_card_of_the_kind_runs_the_same_recipe():
    from habana_frameworks.torch.dynamo.compile_backend.graph_text import describe

    def text(device):
        graph = torch.fx.Graph()
        graph.call_function(torch.arange, (4,), {"device": torch.device(device)})
        return describe(torch.fx.GraphModule({}, graph), ())

    assert text("hpu:0") == text("hpu:1") != text("cpu")


def test_a_number_of_the_host_is_part_of_the_recipe():
    """It is baked into the graph; a number on the card is an input."""
    host = [capture(lambda x, n=n: x * torch.tensor(n), ones(3)) for n in (2.0, 2.0, 3.0)]
    assert [h.total_compilations for h in host] == [1, 0, 1]
    card = [capture(lambda x, n: x * n, ones(3), torch.tensor(n).to("hpu")) for n in (2.0, 3.0)]
    assert [c.total_compilations for c in card] == [1, 0]


def test_a_compilation_takes_the_time_it_is_told(monkeypatch):
    monkeypatch.setattr(recipes._state, "time", config.CompileTime(0.0, 0.05))
    started = time.perf_counter()
    compiled = capture(lambda x: x * 7 + 1, ones(3))
    between = time.perf_counter()
    known = capture(lambda x: x * 7 + 1, ones(3))
    assert between - started >= 0.1
    assert compiled.compilation_us["graph_capture"] >= 100_000
    assert known.compilations == {}
    assert time.perf_counter() - between < 0.05


@pytest.mark.parametrize(
    ("text", "seconds", "per_operator"), [("2.5", 2.5, 0), ("0.01/op", 0, 0.01), ("0", 0, 0)]
)
def test_compile_seconds(text, seconds, per_operator):
    settings = config.read({"GAUDI_EMULATOR_COMPILE_SECONDS": text})
    assert settings.compile_time == (config.CompileTime(seconds, per_operator))


@pytest.mark.parametrize("text", ["fast", "-1", "1/operator", "nan", "1e9", ""])
def test_compile_seconds_that_make_no_sense(text):
    with pytest.raises(ValueError, match=r"GAUDI_EMULATOR_COMPILE_SECONDS=.*0\.01/op"):
        config.read({"GAUDI_EMULATOR_COMPILE_SECONDS": text})


COMPILED = """
import torch, habana_frameworks.torch as bridge, gaudi_emulator
layer = torch.compile(lambda x, w: torch.relu(x @ w) + 1, backend="hpu_backend", dynamic=False)
with torch.no_grad():
    for rows in (2, 3, 4):
        layer(torch.ones(rows, 4, device="hpu"), torch.ones(4, 4, device="hpu"))
counters = gaudi_emulator.counters()
print(counters.total_compilations, counters.recipe_hits["disk"])
"""
CAPTURED = """
import torch, habana_frameworks.torch as bridge, gaudi_emulator
module = bridge.hpu.wrap_in_hpu_graph(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()))
module = module.to("hpu")
with torch.no_grad():
    for rows in (2, 3, 4):
        module(torch.ones(rows, 4).to("hpu"))
counters = gaudi_emulator.counters()
print(counters.total_compilations, counters.recipe_hits["disk"])
"""
PROGRAMS = {"compile": (COMPILED, "0"), "graphs": (CAPTURED, "1")}


def run(mode, folder, more="", **environment):
    """What a process of its own prints, and what it logs."""
    program, lazy = PROGRAMS[mode]
    done = run_python(
        program,
        PT_HPU_LAZY_MODE=lazy,
        PT_HPU_RECIPE_CACHE_CONFIG=f"{folder}{more}",
        **environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), [line for line in done.stderr.splitlines() if "recipe" in line]


@pytest.mark.parametrize("mode", PROGRAMS)
def test_a_later_process_compiles_nothing(tmp_path, mode):
    assert run(mode, tmp_path) == (["3", "0"], [])
    files = sorted(tmp_path.iterdir())
    assert [f.suffix for f in files] == [".recipe"] * 3
    assert run(mode, tmp_path) == (["0", "3"], [])
    # A damaged recipe is compiled again, and sound afterwards.
    files[1].write_bytes(files[1].read_bytes()[:-5])
    counts, lines = run(mode, tmp_path)
    assert counts == ["1", "2"]
    assert len(lines) == 1
    assert files[1].name in lines[0]
    assert run(mode, tmp_path) == (["0", "3"], [])
    # Another device has other recipes.
    assert run(mode, tmp_path, GAUDI_EMULATOR_DEVICE="GAUDI2") == (["3", "0"], [])


def test_processes_that_meet_the_same_graphs_compile_each_once(tmp_path):
    """As ranks do, at the same time: the others wait for the one that compiles."""
    program = """
import pathlib, sys, time, torch, habana_frameworks.torch, gaudi_emulator
from gaudi_emulator import recipes
folder, mine = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
mine.touch()
while len(list(mine.parent.iterdir())) < 3:
    time.sleep(0.001)
for n in range(20):
    recipes.obtain("graph_capture", f"graph {n}", "", 1)
print(gaudi_emulator.counters().total_compilations)
"""
    (tmp_path / "here").mkdir()
    folder = tmp_path / "recipes"
    environment = {
        **os.environ,
        "PT_HPU_RECIPE_CACHE_CONFIG": str(folder),
        "GAUDI_EMULATOR_COMPILE_SECONDS": "0.01",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(folder), str(tmp_path / "here" / str(rank))],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    assert sum(int(rank.communicate(timeout=120)[0]) for rank in ranks) == 20
    assert {path.suffix for path in folder.iterdir()} == {".recipe"}


def test_a_start_can_begin_anew(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    run("graphs", tmp_path)
    assert run("graphs", tmp_path, ",true,8") == (["3", "0"], [])
    assert (tmp_path / "manifest.json").exists()
    # Of one run only the first process empties the folder: neither those it starts nor other ranks.
    child = {"GAUDI_EMULATOR_RECIPES_EMPTIED": str(tmp_path)}
    clean = {k: v for k, v in os.environ.items() if k != "GAUDI_EMULATOR_RECIPES_EMPTIED"}
    for extra in (child, {"RANK": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", CAPTURED],
            env={
                **clean,
                **extra,
                "PT_HPU_LAZY_MODE": "1",
                "PT_HPU_RECIPE_CACHE_CONFIG": f"{tmp_path},true,8",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert done.stdout.split() == ["0", "3"]


def test_killed_at_any_moment_leaves_a_sound_folder(tmp_path):
    """Two processes fill one folder and are killed; the next finds only whole recipes."""
    endless = """
import itertools, torch, habana_frameworks.torch
from gaudi_emulator import recipes
for n in itertools.count():
    recipes.obtain("graph_capture", f"graph {n}", "", 1)
    print(n, flush=True)
"""
    environment = {**os.environ, "PT_HPU_RECIPE_CACHE_CONFIG": str(tmp_path)}
    environment.pop("GAUDI_EMULATOR_COMPILE_SECONDS", None)
    chance = random.Random(0)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", endless], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in processes:
        process.stdout.readline()
        time.sleep(0.05 + chance.random() / 10)
        process.kill()
    last = 0
    for process in processes:
        lines = process.communicate()[0].split()
        last = max(last, int(lines[-1]) if lines else 0)
    check = f"""
import torch, habana_frameworks.torch, gaudi_emulator
from gaudi_emulator import recipes
for n in range({last} + 1):
    recipes.obtain("graph_capture", f"graph {{n}}", "", 1)
print(gaudi_emulator.counters().total_compilations)
"""
    done = run_python(check, PT_HPU_RECIPE_CACHE_CONFIG=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0"]
    assert "Ignored" not in done.stderr
    assert last > 10


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/tmp/r,maybe", "'maybe' is neither true nor false"),
        ("/tmp/r,false,big", "the size 'big'"),
        ("/tmp/r,false,0", "the size '0'"),
        ("/tmp/r,false,1,false,x", "it has 5 fields"),
    ],
)
def test_a_variable_that_makes_no_sense(text, why):
    from habana_frameworks.torch._recipes import parse_config

    with pytest.raises(ValueError, match=f"PT_HPU_RECIPE_CACHE_CONFIG=.*{why}"):
        parse_config(text)


def test_the_variables_fields():
    from habana_frameworks.torch._recipes import parse_config

    assert parse_config(",false,1024,false") == ("", False, 1 << 30)
    assert parse_config("") == ("", False, 1 << 30)
    assert parse_config(" /r , True , 2") == ("/r", True, 2 << 20)
    # On a network file system the second and third field have no effect.
    folder, empty_first, limit = parse_config("/r,true,2,true")
    assert (folder, empty_first) == ("/r", False)
    assert limit > 1 << 50
