"""A process whose device is configured once and which runs pieces of code in turn."""

import json
import os
import subprocess
import sys
from typing import Any

_SERVE = """
import contextlib, io, json, sys, traceback
import time, torch, gaudi_emulator
gaudi_emulator.activate()
from gaudi_emulator._C import Region
from gaudi_emulator.graph import Graph

def slow_graph():
    "A graph that adds 1 to `out` after a while."
    a, out = torch.zeros(600, 600, device="hpu"), torch.zeros(4, device="hpu")
    graph = Graph()
    graph.capture_begin()
    for _ in range(30):
        a.copy_(torch.tanh(a @ a))
    out.add_(1)
    graph.capture_end()
    graph.reads = a  # which must live as long as the graph
    torch.hpu.synchronize()
    return graph, out

def doubling(x):
    "A recorded region that doubles a tensor like `x`, and its first result."
    region = Region()
    region.record_begin()
    with torch.no_grad():
        y = x * 2
    assert region.record_end([x], [y]), region.obstacle
    return region, y

known = dict(
    time=time, torch=torch, gaudi_emulator=gaudi_emulator, Graph=Graph, slow_graph=slow_graph,
    doubling=doubling, side=torch.hpu.Stream(),
)
for line in sys.stdin:
    printed, failed = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            exec(json.loads(line), dict(known))
        except Exception:
            failed = traceback.format_exc()
        try:
            torch.hpu.synchronize()
        except Exception:
            pass
    print(json.dumps([printed.getvalue(), failed]), flush=True)
"""


class StreamProcess:
    """An emulated device of its own, poisoned, with 1 GiB.

    Code sees torch, gaudi_emulator, Graph, ``slow_graph()`` (a graph and the tensor that it adds 1
    to), ``doubling(x)`` (a compiled region and its first result) and ``side``, a stream. Names do
    not survive the piece of code that made them.

    Args:
        streams: GAUDI_EMULATOR_STREAMS.
        check: GAUDI_EMULATOR_CHECK_STREAMS.
    """

    def __init__(self, streams: str, check: str = "raise") -> None:
        settings = {
            "GAUDI_EMULATOR_STREAMS": streams,
            "GAUDI_EMULATOR_CHECK_STREAMS": check,
            "GAUDI_EMULATOR_POISON": "1",
            "GAUDI_EMULATOR_MEMORY": "1GiB",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            env={**os.environ, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def attempt(self, code: str) -> tuple[str, str]:
        """What the code printed, and the traceback if it failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(code) + "\n")
        self._process.stdin.flush()
        printed, failed = json.loads(self._process.stdout.readline())
        return printed, failed

    def run(self, code: str) -> list[str]:
        """The lines that the code printed; it must not fail."""
        printed, failed = self.attempt(code)
        assert not failed, failed
        return printed.splitlines()

    def stop(self) -> str:
        """End the process; what it wrote to stderr."""
        _, written = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, written
        return written

    def __enter__(self) -> "StreamProcess":
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._process.poll() is None:
            self.stop()
