"""What one rank counts: compilations by phase, padding, where steps ran, how far warm-up is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from itertools import product
from typing import TYPE_CHECKING

from vllm_hpu.device.memory import memory_info
from vllm_hpu.device.metrics import compilation_seconds, compilations, host_fallbacks
from vllm_hpu.liveness import pulse
from vllm_hpu.metrics import definitions as metrics
from vllm_hpu.metrics.progress import WarmupProgress
from vllm_hpu.metrics.store import Store, Value
from vllm_hpu.settings import metrics_folder

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig

    from vllm_hpu.shapes.key import GraphKey
    from vllm_hpu.shapes.plan import ShapePlan
    from vllm_hpu.shapes.step import Step

POLL_SECONDS = 1.0
"""How often the device is asked for its counters; steps never wait for that."""

KINDS = ("decode", "prefill", "mixed")


class Phase(Enum):
    START = "start"
    WARM_UP = "warm_up"
    IDLE_GAP = "idle_gap"
    SERVING = "serving"


class StepMetrics:
    """Counts the steps of an engine: three stores to memory each."""

    def __init__(self, store: Store, plan: ShapePlan) -> None:
        self._plan = plan
        graphs = ("planned", "stand_in", "outside_plan")
        self._steps: dict[tuple[str, str], Value] = {
            (kind, graph): store.value(metrics.STEPS, kind=kind, graph=graph)
            for kind, graph in product(KINDS, graphs)
        }
        self._tokens: dict[tuple[str, str], Value] = {
            (kind, part): store.value(metrics.TOKENS, kind=kind, part=part)
            for kind, part in product(KINDS, ("real", "padding"))
        }

    def count(self, step: Step, key: GraphKey) -> None:
        """``step`` ran in the graph of ``key``."""
        kind = key.kind
        if key not in self._plan:
            graph = "outside_plan"
        elif key == self._plan.dispatch(step):
            graph = "planned"
        else:
            graph = "stand_in"
        self._steps[kind, graph].add(1)
        self._tokens[kind, "real"].add(step.tokens)
        self._tokens[kind, "padding"].add(key.tokens - step.tokens)


class EngineMetrics:
    """The metrics of one rank, from its device's first compilation on."""

    def __init__(self, config: VllmConfig, rank: int) -> None:
        """The bridge must be loaded."""
        folder, _ = metrics_folder()
        # As vllm.v1.metrics.loggers.PrometheusStatLogger labels its metrics.
        engine = config.parallel_config.data_parallel_index
        labels = (str(config.model_config.served_model_name), str(engine))
        self._store = Store(
            folder,
            f"hpu-{config.instance_id}-{rank}",
            dict(zip(metrics.COMMON_LABELS, labels, strict=True)),
        )
        self._phase = Phase.START
        self._lock = threading.Lock()
        values = self._store.value
        self._compilations = {
            phase: values(metrics.COMPILATIONS, phase=phase.value, rank=str(rank))
            for phase in Phase
        }
        self._seconds = {
            phase: values(metrics.COMPILATION_SECONDS, phase=phase.value, rank=str(rank))
            for phase in Phase
        }
        fallbacks = host_fallbacks()
        self._fallbacks = (
            None if fallbacks is None else values(metrics.HOST_FALLBACKS, rank=str(rank))
        )
        self._memory = values(metrics.MEMORY, rank=str(rank))
        self._device: torch.device | None = None
        self._warm_up: dict[str, Value] = {}
        self._first = rank == 0
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll_often, name="hpu-metrics", daemon=True)
        self._poller.start()

    def steps(self, plan: ShapePlan) -> StepMetrics | None:
        """Counts steps in ``plan``; None on all ranks but the first, whose steps are the same."""
        return StepMetrics(self._store, plan) if self._first else None

    def enter(self, phase: Phase) -> None:
        """What is compiled from now on belongs to ``phase``."""
        self.poll()
        self._phase = phase

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """What is compiled within belongs to ``phase``, and afterwards to serving."""
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(Phase.SERVING)

    def show(self, progress: WarmupProgress | None) -> None:
        """Publish how far warm-up has come; nothing without warm-up."""
        if progress is None or not self._first:
            return
        if not self._warm_up:
            values = self._store.value
            self._warm_up = {
                state: values(metrics.WARM_UP_GRAPHS, state=state)
                for state in ("planned", "ready", "cached", "dropped")
            }
            self._warm_up["seconds"] = values(metrics.WARM_UP_SECONDS)
            self._warm_up["bytes"] = values(metrics.WARM_UP_BYTES)
            self._warm_up["finished"] = values(metrics.WARM_UP_FINISHED)
        for name, value in self._warm_up.items():
            value.set(float(getattr(progress, name)))

    def watch_memory(self, device: torch.device) -> None:
        """From here on ask ``device``, which is open, for its memory in use too."""
        self._device = device

    def poll(self) -> None:
        """Ask the device for its counters."""
        with self._lock:
            if self._device is not None:
                self._memory.set(memory_info(self._device).used_bytes)
            count = self._compilations.values()
            new = compilations() - sum(value.value for value in count)
            if new:
                self._compilations[self._phase].add(new)
                pulse.compiled(int(new))
                spent = sum(value.value for value in self._seconds.values())
                self._seconds[self._phase].add(max(0.0, compilation_seconds() - spent))
            fallbacks = host_fallbacks()
            if self._fallbacks is not None and fallbacks is not None:
                self._fallbacks.set(fallbacks)

    def close(self) -> None:
        """Ask a last time and no more: the device is about to go."""
        if not self._stop.is_set():
            self._stop.set()
            self._poller.join()
            self.poll()

    def _poll_often(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.poll()
