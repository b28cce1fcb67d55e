"""Where does the time of a decode step go? By kind of kernel and by who works on the host.

Each mode runs in a process of its own on the benchmark's 100 M Llama, greedy, one token per request
and step. Kernels are timed by the device; what a part of the step takes beyond its kernels is host
work: Python, dispatch, and the device's bookkeeping.

``python -m benchmarks.shares --batch 16``
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

from benchmarks.modes import answer, mode_options, run_mode
from benchmarks.steps import add, make_engine

PRODUCTS = ("mm", "addmm", "linear", "matmul")
ATTENTION = ("bmm", "index_select", "index_reduce", "index_copy_", "exp_", "sub_", "amax", "sum")
PARTS = ("products", "attention", "other kernels", "sampler", "runner", "vLLM")


def kind_of(operator: str) -> str:
    """The kind of kernel that an operator of the forward is."""
    name = operator.rsplit("::", maxsplit=1)[-1].split(".", maxsplit=1)[0].removesuffix("_out")
    if name in PRODUCTS:
        return "products"
    return "attention" if name in ATTENTION else "other kernels"


class Watch:
    """Milliseconds and kernels of the runner's two calls of a step."""

    def __init__(self, runner: Any) -> None:
        self.spent: dict[str, float] = {}
        self.kernels: dict[str, dict[str, float]] = {}
        for name in ("execute_model", "sample_tokens"):
            self._watch(runner, name)

    def _watch(self, runner: Any, name: str) -> None:
        from gaudi_emulator.kernel_times import kernel_times

        function = getattr(runner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            before, start = kernel_times(), time.perf_counter()
            result = function(*args, **kwargs)
            self.spent[name] = 1e3 * (time.perf_counter() - start)
            self.kernels[name] = {
                operator: done.milliseconds
                - (before[operator].milliseconds if operator in before else 0)
                for operator, done in kernel_times().items()
            }
            return result

        setattr(runner, name, watched)


def run(options: argparse.Namespace) -> dict[str, float]:
    """Median milliseconds of a decode step and its parts, in this process."""
    from gaudi_emulator.kernel_times import timed_kernels

    core = make_engine(options).llm_engine
    watch = Watch(core.model_executor.driver_worker.worker.model_runner)
    steps: list[dict[str, float]] = []
    with timed_kernels():
        for index in range(options.batch):
            add(core, f"request-{index}", 20 + options.steps, {"temperature": 0.0})
        while core.has_unfinished_requests():
            watch.spent.clear()
            start = time.perf_counter()
            core.step()
            steps.append(parts(1e3 * (time.perf_counter() - start), watch))
    core.engine_core.shutdown()
    decode = [step for step in steps[10:-5] if step]
    return {name: median(step[name] for step in decode) for name in ("step", *PARTS)}


def parts(whole: float, watch: Watch) -> dict[str, float]:
    """Split one step; empty for a step without a forward."""
    if len(watch.spent) < 2:
        return {}
    result = dict.fromkeys(PARTS, 0.0)
    forward, sampler = watch.kernels["execute_model"], watch.kernels["sample_tokens"]
    for operator, milliseconds in forward.items():
        result[kind_of(operator)] += milliseconds
    result["sampler"] = sum(sampler.values())
    inside = sum(watch.spent.values())
    result["runner"] = inside - sum(forward.values()) - sum(sampler.values())
    result["vLLM"] = whole - inside
    return result | {"step": whole}


def show(mode: str, batch: int, result: dict[str, float]) -> None:
    """One row of the table."""
    whole = result["step"]
    shares = " | ".join(
        f"{result[name]:.2f} ({100 * result[name] / whole:.0f} %)" for name in PARTS
    )
    print(f"| {mode} | {batch} | {whole:.1f} | {shares} |", flush=True)


def main() -> None:
    parser = mode_options(__doc__.splitlines()[0], batch=1)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    if options.run:
        return answer(lambda: run(options))
    print(f"| mode | batch | ms | {' | '.join(PARTS)} |")
    print("|---|---:" + "|---:" * (1 + len(PARTS)) + "|", flush=True)
    for mode in options.modes:
        found = run_mode("benchmarks.shares", mode, options, "--steps", str(options.steps))
        show(mode, options.batch, found)
    return None


if __name__ == "__main__":
    main()
