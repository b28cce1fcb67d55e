"""GRAPH_VISUALIZATION=1: one file for every graph that is compiled."""

import os
from pathlib import Path

import pytest

from tests.device.conftest import emulated_only, run_python

pytestmark = emulated_only

LAZY = """
import glob, torch, habana_frameworks.torch as htorch
x = torch.ones(4, device="hpu")
for width in (1, 2, 1):
    (x[:width] * 3 + 1).sum()
    htorch.core.mark_step()
"""
COMPILED = """
import glob, torch, habana_frameworks.torch
f = torch.compile(lambda x: (x * 3 + 1).sum(), backend="hpu_backend", dynamic=False)
for width in (1, 2, 1):
    f(torch.ones(width, device="hpu"))
"""
REPORT = """
import gaudi_emulator
files = glob.glob(".graph_dumps/*PreGraph*")
compiled = gaudi_emulator.counters().total_compilations
print(len(files), compiled, all("mul" in open(f).read() for f in files))
"""


@pytest.mark.parametrize(("code", "lazy"), [(LAZY, "1"), (COMPILED, "0")], ids=["lazy", "compile"])
def test_a_file_for_each_compiled_graph(tmp_path, monkeypatch, code, lazy):
    monkeypatch.chdir(tmp_path)
    done = run_python(code + REPORT, GRAPH_VISUALIZATION="1", PT_HPU_LAZY_MODE=lazy)
    files, compiled, _ = done.stdout.split()
    assert files == compiled, done.stdout
    assert int(files) >= 2
    first = sorted(Path(".graph_dumps").glob("*PreGraph*"))[0]
    assert first.read_text().startswith("node {\n  name:")


def test_nothing_without_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_python(LAZY + REPORT, GRAPH_VISUALIZATION="0", PT_HPU_LAZY_MODE="1")
    assert done.stdout.split()[0] == "0", done.stderr
    assert not os.path.exists(".graph_dumps")
