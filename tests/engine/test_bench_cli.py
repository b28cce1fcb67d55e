"""`vllm bench throughput` and `vllm bench latency` run offline and print their summary."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Front ends of vLLM over engines that other tests start, too.
pytestmark = pytest.mark.slow

LIMITS = (
    "--max-model-len=128",
    "--max-num-seqs=2",
    "--max-num-batched-tokens=64",
    "--kv-cache-memory-bytes=33554432",
)


def bench(command: str, model: Path, *flags: str) -> str:
    """What ``vllm bench COMMAND`` prints."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("vllm")),
            "bench",
            command,
            f"--model={model}",
            *LIMITS,
            *flags,
        ],
        env=os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


# The latency benchmark draws token ids up to 10,000, which the tiny model does not have.
LARGER = ('--hf-overrides={"vocab_size": 10240}', "--load-format=dummy")


@pytest.fixture(scope="module")
def llama(tiny: Callable[[str], Path]) -> Path:
    return tiny("llama")


def test_throughput(llama: Path) -> None:
    lengths = ("--random-input-len=16", "--random-output-len=4")
    output = bench("throughput", llama, "--dataset-name=random", "--num-prompts=4", *lengths)
    found = re.search(r"Throughput: ([\d.]+) requests/s, ([\d.]+) total tokens/s", output)
    assert found, output
    assert float(found[1]) > 0
    assert "Total num output tokens:  16" in output


def test_latency(llama: Path) -> None:
    flags = (
        "--input-len=16",
        "--output-len=4",
        "--batch-size=2",
        "--num-iters=2",
        "--num-iters-warmup=1",
    )
    output = bench("latency", llama, *flags, *LARGER)
    found = re.search(r"Avg latency: ([\d.]+) seconds", output)
    assert found, output
    assert float(found[1]) > 0
    assert "99% percentile latency" in output
