"""Every metric of the plugin: name, type, labels, meaning. docs/metrics.md shows this table."""

from dataclasses import dataclass
from typing import Literal

COMMON_LABELS = ("model_name", "engine")
"""The labels of vLLM's own metrics; every metric here has them."""


@dataclass(frozen=True)
class Metric:
    """One metric as Prometheus sees it.

    labels  beside ``COMMON_LABELS``
    """

    name: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    help: str

    @property
    def sample(self) -> str:
        """The name of its samples on /metrics."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


COMPILATIONS = Metric(
    "vllm:hpu_compilations",
    "counter",
    ("phase", "rank"),
    "Recipes that the device compiled, by phase: start (before warm-up), warm_up (before the "
    "server answers), idle_gap (warm-up that goes on while it serves), serving (while a request "
    "waits).",
)
COMPILATION_SECONDS = Metric(
    "vllm:hpu_compilation_seconds",
    "counter",
    ("phase", "rank"),
    "Seconds that these compilations took, as the device counts them.",
)
HOST_FALLBACKS = Metric(
    "vllm:hpu_host_fallbacks",
    "counter",
    ("rank",),
    "Operators that ran on the host because the device has none; each costs copies both ways.",
)
MEMORY = Metric(
    "vllm:hpu_memory_used_bytes",
    "gauge",
    ("rank",),
    "Memory of the card that is in use, in bytes, as the device counts it; 0 until serving begins.",
)
STEPS = Metric(
    "vllm:hpu_steps",
    "counter",
    ("kind", "graph"),
    "Steps by the kind of the graph they ran in (decode, prefill, mixed) and by how it was found: "
    "planned (the step's own graph), stand_in (a larger one, because its own is not compiled), "
    "outside_plan (no planned one is large enough).",
)
TOKENS = Metric(
    "vllm:hpu_step_tokens",
    "counter",
    ("kind", "part"),
    "Tokens of these steps: real, and padding up to the size of the graph.",
)
WARM_UP_GRAPHS = Metric(
    "vllm:hpu_warmup_graphs",
    "gauge",
    ("state",),
    "Graphs of the plan by state: planned (all of them), ready (compiled or from a cache), cached "
    "(of the ready ones, those that a cache had), dropped (kept from being compiled by a limit).",
)
WARM_UP_SECONDS = Metric(
    "vllm:hpu_warmup_seconds", "gauge", (), "Seconds that warm-up has spent on graphs so far."
)
WARM_UP_BYTES = Metric(
    "vllm:hpu_warmup_bytes", "gauge", (), "Device memory that the warmed-up graphs keep, in bytes."
)
WARM_UP_FINISHED = Metric(
    "vllm:hpu_warmup_finished", "gauge", (), "1 when no graph is left to compile, else 0."
)

METRICS = (
    COMPILATIONS,
    COMPILATION_SECONDS,
    HOST_FALLBACKS,
    MEMORY,
    STEPS,
    TOKENS,
    WARM_UP_GRAPHS,
    WARM_UP_SECONDS,
    WARM_UP_BYTES,
    WARM_UP_FINISHED,
)
