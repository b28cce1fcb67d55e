"""Does a server that runs for long grow, and does it lose replies?

Starts ``vllm serve`` in one mode, keeps it under mixed load (streams, cancelled requests, ``n``,
``echo``, log-probabilities, grammars, JSON schemas, penalties, seeds, shared prefixes), samples the
memory of each of its processes and of the card, and fits a line to the last part of the run.

``python -m benchmarks.soak graphs --minutes 30 --json soak.json --plot soak.png``

Exit code 1: a reply was lost or refused, a process or the card's memory in use has grown.
The KV cache's pages become resident when they are first written, on an emulated card in the
engine's own process; all blocks are therefore written before the load begins.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.modes import MODES
from benchmarks.soak_load import Load, Replies
from benchmarks.soak_memory import MB, ProcessTree, Sample, Slope, slope
from tests.serve.server import Server, start_server

DEMO = Path(__file__).resolve().parent.parent / "models" / "demo"
BLOCK_TOKENS = 128
DEVICE = "vllm:hpu_memory_used_bytes"
DEVICE_TOLERANCE = 1 << 20
"""Bytes that the card's memory in use may differ by and still be level."""


@dataclass
class Run:
    """One soak. ``device`` has seconds and bytes, ``fitted_from`` seconds since the start."""

    mode: str
    fitted_from: float
    replies: Replies
    processes: dict[str, list[Sample]]
    device: list[tuple[float, float]] = field(default_factory=list)
    ended: int | None = None

    def slopes(self) -> dict[str, dict[str, Slope]]:
        """By process, of its resident (rss) and its own (uss) memory."""
        found = {}
        for name, samples in self.processes.items():
            window = [sample for sample in samples if sample.seconds >= self.fitted_from]
            times = [sample.seconds for sample in window]
            found[name] = {
                kind: slope(times, [getattr(sample, kind) for sample in window])
                for kind in ("rss", "uss")
            }
        return found

    def device_growth(self) -> float | None:
        """How much more is in use at the least in the window's last third than in its first.

        Steps take memory and give it back, so what stays in use is the least of many samples.
        """
        window = [used for seconds, used in self.device if seconds >= self.fitted_from and used]
        third = len(window) // 3
        return min(window[-third:]) - min(window[:third]) if third else None

    def failures(self, limit: float) -> list[str]:
        """Why the run has failed; nothing where it has not."""
        found = []
        for outcome in ("lost", "refused"):
            if count := self.replies.outcomes[outcome]:
                found.append(f"{count} requests were {outcome}")
        if self.ended is not None:
            found.append(f"the server ended by itself, with exit code {self.ended}")
        found += [
            f"{name} grows by {line['rss'].per_hour:.1f} MB/h, more than {limit:g}"
            for name, line in self.slopes().items()
            if line["rss"].per_hour > limit
        ]
        growth = self.device_growth()
        if growth is not None and growth > DEVICE_TOLERANCE:
            found.append(f"memory in use on the card has grown by {growth / MB:.1f} MB")
        return found


def soak(options: argparse.Namespace, folder: Path) -> Run:
    """Run a server under load; its log is ``folder / "server.log"``."""
    flags = [
        "--served-model-name=demo",
        f"--max-model-len={options.longest}",
        f"--max-num-seqs={options.concurrency}",
        "--max-num-batched-tokens=256",
        f"--num-gpu-blocks-override={options.blocks}",
        "--kv-cache-memory-bytes=268435456",
        *options.server_flags,
    ]
    models: tuple[str, ...] = ("demo",)
    if options.mode == "eager":
        flags.append("--enforce-eager")
    if options.lora:
        flags += ["--enable-lora", "--max-lora-rank=8"]
        flags.append(f"--lora-modules=adapter={_adapter(folder)}")
        models += ("adapter",)
    environment = {
        "PT_HPU_LAZY_MODE": "1" if options.mode == "graphs" else "0",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    log = folder / "server.log"
    say(f"Starting the server in mode {options.mode}; its log is {log}.")
    with start_server(options.model, *flags, log=log, **environment) as server:
        _wait_for_warm_up(server)
        load = Load(server.url, models, options.longest, options.seed)
        return asyncio.run(_run(server, load, options))


async def _run(server: Server, load: Load, options: argparse.Namespace) -> Run:
    say("Writing every block of the KV cache.")
    await load.touch_blocks(3 * options.blocks * BLOCK_TOKENS // 2, options.concurrency)
    tree = ProcessTree(server.process.pid)
    start = time.monotonic()
    minutes, last = options.minutes, options.last
    run = Run(options.mode, 60 * (minutes - last), load.replies, tree.samples)
    clients = asyncio.create_task(load.run(start + 60 * minutes, options.concurrency))
    told = start
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        while not clients.done():
            seconds = time.monotonic() - start
            tree.look(seconds)
            run.device += [(seconds, used) for used in await _device_memory(client)]
            if time.monotonic() - told >= options.report_seconds:
                told = time.monotonic()
                say(_progress(seconds, run))
            if server.process.poll() is not None:
                clients.cancel()
            await asyncio.wait({clients}, timeout=options.interval)
    await asyncio.gather(clients, return_exceptions=True)
    run.ended = server.process.poll()
    return run


async def _device_memory(client: httpx.AsyncClient) -> list[float]:
    """Bytes in use on all cards, together; nothing from a server that does not say."""
    try:
        text = (await client.get("/metrics")).text
    except httpx.TransportError:
        return []
    used = [sample.value for sample in _samples(text) if sample.name == DEVICE]
    return [sum(used)] if used else []


def _samples(text: str) -> list[Any]:
    return [one for family in text_string_to_metric_families(text) for one in family.samples]


def _wait_for_warm_up(server: Server) -> None:
    """Idle gaps compile what is left; eager mode has no warm-up."""
    deadline = time.monotonic() + 1800
    while time.monotonic() < deadline:
        text = httpx.get(f"{server.url}/metrics", timeout=30).text
        left = [one for one in _samples(text) if one.name == "vllm:hpu_warmup_finished"]
        if all(one.value == 1 for one in left):
            return
        time.sleep(1)
    raise TimeoutError("warm-up did not finish in half an hour")


def _adapter(folder: Path) -> Path:
    import torch
    from transformers import AutoModelForCausalLM

    from models.tiny_llama_parts import save_lora

    out = folder / "adapter"
    out.mkdir(exist_ok=True)
    save_lora("llama_lora_a", AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32), out)
    return out


def _progress(seconds: float, run: Run) -> str:
    memory = ", ".join(
        f"{name} {samples[-1].rss / MB:.1f}" for name, samples in run.processes.items()
    )
    counts = ", ".join(f"{count} {name}" for name, count in sorted(run.replies.outcomes.items()))
    return f"{seconds / 60:5.1f} min: {counts}; resident MB: {memory}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(run: Run) -> str:
    """The processes, one a line."""
    rows = [f"{'process':<20} {'first MB':>9} {'last MB':>9} {'rss MB/h':>14} {'uss MB/h':>14}"]
    for name, lines in run.slopes().items():
        samples = run.processes[name]
        fits = [f"{line.per_hour:+.1f} ± {line.uncertainty:.1f}" for line in lines.values()]
        ends = [f"{sample.rss / MB:.1f}" for sample in (samples[0], samples[-1])]
        rows.append(f"{name:<20} {ends[0]:>9} {ends[1]:>9} {fits[0]:>14} {fits[1]:>14}")
    growth = run.device_growth()
    rows.append("device memory: " + ("unknown" if growth is None else f"{growth / MB:+.2f} MB"))
    counts = ", ".join(f"{count} {name}" for name, count in sorted(run.replies.outcomes.items()))
    return "\n".join([*rows, f"replies: {counts}", *run.replies.errors])


def write_json(run: Run, failures: list[str], file: Path) -> None:
    """All samples, fits and counts."""
    content = {
        "mode": run.mode,
        "failures": failures,
        "fitted_from_seconds": run.fitted_from,
        "slopes_mb_per_hour": {
            name: {kind: asdict(line) for kind, line in lines.items()}
            for name, lines in run.slopes().items()
        },
        "device_growth_bytes": run.device_growth(),
        "replies": vars(run.replies),
        "columns": [*Sample._fields],
        "processes": run.processes,
        "device_seconds_bytes": run.device,
    }
    file.write_text(json.dumps(content))


def plot(run: Run, file: Path) -> None:
    """Memory over time, every process in an axis of its own; PNG or SVG by the suffix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.2 * (len(run.processes) + 1)), layout="constrained")
    axes = figure.subplots(len(run.processes) + 1, 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, samples) in zip(axes, run.processes.items(), strict=False):
        minutes = [sample.seconds / 60 for sample in samples]
        for kind in ("rss", "uss"):
            axis.plot(minutes, [getattr(one, kind) / MB for one in samples], label=kind)
        axis.set_title(f"{name}: {run.slopes()[name]['rss'].per_hour:+.1f} MB/h", fontsize=10)
        axis.set_ylabel("MB")
        axis.legend(fontsize=8)
    axes[-1].plot([s / 60 for s, _ in run.device], [used / MB for _, used in run.device])
    axes[-1].set_title("device memory in use", fontsize=10)
    axes[-1].set_ylabel("MB")
    axes[-1].set_xlabel("minutes")
    for axis in axes:
        axis.axvline(run.fitted_from / 60, linestyle=":", color="grey")
    figure.savefig(file)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--minutes", type=float, default=30.0, help="of load (default: 30)")
    parser.add_argument("--last", type=float, help="minutes that are fitted (default: two thirds)")
    parser.add_argument("--limit", type=float, default=5.0, help="MB/h a process may grow by")
    parser.add_argument("--concurrency", type=int, default=8, help="requests in flight")
    parser.add_argument("--blocks", type=int, default=96, help="of the KV cache, 128 tokens each")
    parser.add_argument("--longest", type=int, default=512, help="tokens of a request")
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between samples")
    parser.add_argument("--report-seconds", type=float, default=30.0, help="between lines")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default=str(DEMO), help="default: the demo model")
    parser.add_argument("--lora", action="store_true", help="half of the requests use an adapter")
    parser.add_argument("--json", type=Path, help="write all samples to this file")
    parser.add_argument("--plot", type=Path, help="draw them (.png, .svg; needs matplotlib)")
    parser.add_argument("--log-folder", type=Path, help="of the server's log (default: temporary)")
    parser.add_argument("server_flags", nargs="*", help="after --, more flags of vllm serve")
    options = parser.parse_args(arguments)
    options.last = 2 * options.minutes / 3 if options.last is None else options.last
    if not 0 < options.last <= options.minutes:
        parser.error("--last must be above 0 and at most --minutes")
    folder = options.log_folder or Path(tempfile.mkdtemp(prefix="vllm-hpu-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    run = soak(options, folder)
    failures = run.failures(options.limit)
    if options.json:
        write_json(run, failures, options.json)
    if options.plot:
        plot(run, options.plot)
    print(table(run))
    for failure in failures:
        print(f"FAILED: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
