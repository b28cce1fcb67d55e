"""`vllm bench serve` against the running server prints its summary."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.conftest import DEMO

PROMPTS = 6
NEW_TOKENS = 5


@pytest.mark.slow
def test_bench_serve(chat_server: str) -> None:
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("vllm")),
            "bench",
            "serve",
            f"--base-url={chat_server}",
            "--model=demo",
            f"--tokenizer={DEMO}",
            "--dataset-name=random",
            "--random-input-len=16",
            f"--random-output-len={NEW_TOKENS}",
            f"--num-prompts={PROMPTS}",
            "--ignore-eos",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    numbers = dict(re.findall(r"^([A-Z][^:\n]+):\s+([\d.]+)\s*$", done.stdout, re.MULTILINE))
    assert float(numbers["Successful requests"]) == PROMPTS, done.stdout
    assert float(numbers["Total generated tokens"]) == PROMPTS * NEW_TOKENS
    assert float(numbers["Output token throughput (tok/s)"]) > 0
    assert float(numbers["Mean TTFT (ms)"]) > 0
