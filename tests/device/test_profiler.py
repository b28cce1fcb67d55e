"""vLLM's profiler of kind "torch": it starts, and its trace has what host and card did."""

import gzip
import json

import pytest

from .conftest import emulated_only, run_python

# What a worker does with --profiler-config around a step, in a process whose device is there first.
RECORD = """
import sys
import habana_frameworks.torch
import torch
from vllm.config import ProfilerConfig
from vllm.profiler.wrapper import create_worker_profiler, validate_worker_profiler_config

from vllm_hpu.compat import profiler as compat

compat.install()
x = torch.ones(64, 64, device="hpu")
for zipped in (False, True):
    folder = sys.argv[1] + ("/zipped" if zipped else "/plain")
    config = ProfilerConfig(
        profiler="torch", torch_profiler_dir=folder, torch_profiler_use_gzip=zipped
    )
    validate_worker_profiler_config(config)
    profiler = create_worker_profiler(config, worker_name="rank0", local_rank=0)
    profiler.start()
    assert profiler.is_running
    (x @ x).cpu()
    profiler.stop()
"""


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    done = run_python(f"import sys; sys.argv = ['', {str(folder)!r}]\n{RECORD}")
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@emulated_only
@pytest.mark.parametrize("zipped", [False, True])
def test_a_trace_has_host_and_card(zipped, traces):
    folder = traces / ("zipped" if zipped else "plain")
    [path] = folder.glob("*.json.gz" if zipped else "*.json")
    with (gzip.open if zipped else open)(path, "rt") as file:
        trace = json.load(file)
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    # What Perfetto asks of a span.
    for span in spans:
        assert span["name"]
        assert span["dur"] >= 0
        assert span["ts"] > 0
        assert {"pid", "tid"} <= span.keys()
    # The emulated card computes with PyTorch, whose operators are within the host's.
    host = next(span for span in spans if span["name"] == "aten::mm")
    [card] = [span for span in spans if span.get("cat") == "kernel"]
    assert "mm" in card["name"]
    assert card["pid"] != host["pid"]
    # Begins while the host launches it, on the same clock.
    assert abs(card["ts"] - host["ts"]) < 1e6
    [copy] = [span for span in spans if span.get("cat") == "gpu_memcpy"]
    assert copy["args"]["bytes"] == 64 * 64 * 4
    titles = [
        event["args"]["name"] for event in trace["traceEvents"] if "process_name" in event["name"]
    ]
    assert any(title.startswith("hpu:0") for title in titles)
    assert (folder / "rank0.profiler_out.txt").exists()


def test_vllm_still_does_not_know_the_device():
    """compat/profiler.py can go when vLLM's own tables have it."""
    from pathlib import Path

    from vllm.profiler import wrapper

    assert '"hpu"' not in Path(wrapper.__file__).read_text()
