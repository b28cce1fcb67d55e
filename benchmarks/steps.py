"""What does one step cost on the host and the device? Counts by the device, per mode and phase.

Each mode runs in a process of its own on the benchmark's 100 M Llama. A *decode* step has one token
per request; a *mixed* step has decode rows and the prompt of a request that has just arrived.

``python -m benchmarks.steps --modes graphs compile eager --batch 16``
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from statistics import median
from typing import Any

from benchmarks.modes import answer, mode_options, run_mode

PROMPT_TOKENS = 128
COUNTS = ("launches", "h2d_copies", "d2h_copies", "host_syncs", "total_compilations")


class StepCounts:
    """Device counters and host time of the runner's calls, one record per step.

    A step is one ``execute_model`` and the ``sample_tokens`` that follows it.
    """

    def __init__(self, runner: Any) -> None:
        self.records: list[dict[str, dict[str, float]]] = []
        self._watch(runner, "execute_model", "forward")
        self._watch(runner, "sample_tokens", "sampling and feedback")

    def _watch(self, runner: Any, name: str, phase: str) -> None:
        from gaudi_emulator import counters

        function = getattr(runner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            before, start = counters(), time.perf_counter()
            result = function(*args, **kwargs)
            milliseconds = 1e3 * (time.perf_counter() - start)
            done = counters() - before
            if phase == "forward":
                self.records.append({})
            self.records[-1][phase] = {name: getattr(done, name) for name in COUNTS}
            self.records[-1][phase]["ms"] = milliseconds
            return result

        setattr(runner, name, watched)


def add(core: Any, name: str, tokens: int, sampling: dict[str, Any]) -> None:
    """One request with a random prompt that no other request has."""
    from vllm import SamplingParams

    source = random.Random(name)
    prompt = [source.randrange(10, 250) for _ in range(PROMPT_TOKENS)]
    core.add_request(
        name,
        {"prompt_token_ids": prompt},
        SamplingParams(max_tokens=tokens, ignore_eos=True, detokenize=False, **sampling),
    )


def make_engine(options: argparse.Namespace) -> Any:
    """vLLM's engine in this process, with room for the benchmark's requests."""
    from vllm import LLM

    return LLM(
        options.model,
        dtype="bfloat16",
        max_model_len=4 * PROMPT_TOKENS,
        max_num_seqs=options.batch,
        max_num_batched_tokens=PROMPT_TOKENS * options.batch,
        kv_cache_memory_bytes=1 << 29,
        enforce_eager=options.run == "eager",
        skip_tokenizer_init=True,
        disable_log_stats=True,
    )


def rate(core: Any, batch: int, repeats: int) -> dict[str, float]:
    """Median tokens of ``batch`` requests that start together, per second and per CPU second.

    The second does not suffer from what else runs on the machine.
    """
    rates, cpu_rates = [], []
    for repeat in range(repeats + 1):  # the first is a warm-up
        for index in range(batch):
            add(core, f"{batch}-{repeat}-{index}", 32, {"temperature": 0.0})
        start, cpu_start = time.perf_counter(), time.process_time()
        while core.has_unfinished_requests():
            core.step()
        rates.append(32 * batch / (time.perf_counter() - start))
        cpu_rates.append(32 * batch / (time.process_time() - cpu_start))
    return {"s": median(rates[1:]), "CPU s": median(cpu_rates[1:])}


def mixed_load(core: Any, counts: StepCounts, options: argparse.Namespace) -> list[str]:
    """Decode with a request that arrives late; returns the kind of each recorded step."""
    sampling = {"temperature": 0.0}
    if options.random:
        sampling = {"temperature": 0.8, "top_p": 0.9, "top_k": 20}
    kinds: list[str] = []
    for round_number in range(options.repeats):
        for index in range(options.batch - 1):
            add(core, f"long-{round_number}-{index}", 40, sampling)
        for step in range(24):
            if step == 12:
                add(core, f"late-{round_number}", 8, sampling)
            core.step()
            kind = "mixed" if step == 12 else "decode" if step > 2 else "other"
            kinds += [kind] * (len(counts.records) - len(kinds))
        while core.has_unfinished_requests():
            core.step()
        kinds += ["other"] * (len(counts.records) - len(kinds))
    return kinds


def medians(records: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Per phase, the median of every figure."""
    phases: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for phase, values in record.items():
            for name, value in values.items():
                phases[phase][name].append(value)
    return {
        phase: {name: round(median(values), 2) for name, values in figures.items()}
        for phase, figures in phases.items()
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the steps of one mode in this process; medians per kind of step and phase."""
    core = make_engine(options).llm_engine
    counts = StepCounts(core.model_executor.driver_worker.worker.model_runner)
    result: dict[str, Any] = {
        "tokens_per": {
            batch: rate(core, batch, options.repeats) for batch in sorted({1, options.batch})
        }
    }
    counts.records.clear()
    kinds = mixed_load(core, counts, options)
    for kind in ("decode", "mixed"):
        pairs = zip(kinds, counts.records, strict=True)
        result[kind] = medians([record for found, record in pairs if found == kind])
    core.engine_core.shutdown()
    return result


def show(mode: str, result: dict[str, Any]) -> None:
    """Print one mode's figures."""
    print(f"\n{mode}")
    for batch, rates in result["tokens_per"].items():
        figures = ", ".join(f"{value:.1f} tokens/{unit}" for unit, value in rates.items())
        print(f"  batch {batch}: {figures}")
    print(f"  {'step':<8}{'phase':<24}" + "".join(f"{name:>20}" for name in (*COUNTS, "ms")))
    for kind in ("decode", "mixed"):
        for phase, values in result[kind].items():
            figures = "".join(f"{values[name]:>20}" for name in (*COUNTS, "ms"))
            print(f"  {kind:<8}{phase:<24}{figures}")


def main() -> None:
    parser = mode_options(__doc__.splitlines()[0], batch=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--random", action="store_true", help="temperature, top-k and top-p")
    options = parser.parse_args()
    if options.run:
        return answer(lambda: run(options))
    more = ["--repeats", str(options.repeats), *(["--random"] * options.random)]
    for mode in options.modes:
        show(mode, run_mode("benchmarks.steps", mode, options, *more))
    return None


if __name__ == "__main__":
    main()
