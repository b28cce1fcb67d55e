"""One process per execution mode: the command line of a benchmark that compares modes.

The mode is a choice of a whole process, so the benchmark calls itself with ``--run MODE`` and reads
the answer as JSON from its standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODES = ("graphs", "compile", "eager")


def mode_options(description: str, batch: int) -> argparse.ArgumentParser:
    """A parser of the options that such a benchmark has in any case."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--model", help="a Llama-type checkpoint (default: built here)")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--run", choices=MODES, help=argparse.SUPPRESS)
    return parser


def answer(result: Callable[[], Any]) -> None:
    """Be the process of one mode: what else is printed goes to standard error."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(result()), file=channel, flush=True)


def run_mode(module: str, mode: str, options: argparse.Namespace, *more: str) -> Any:
    """The answer of ``module`` in ``mode``; ``more`` are arguments beside model and batch."""
    if options.model is None:
        from benchmarks.compare import build_model

        options.model = str(build_model())
    command = [sys.executable, "-m", module, "--run", mode, "--model", options.model]
    command += ["--batch", str(options.batch), *more]
    environment = os.environ | {
        "PT_HPU_LAZY_MODE": "1" if mode == "graphs" else "0",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)
