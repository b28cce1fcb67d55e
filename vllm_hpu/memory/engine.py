"""The memory plan of one card: predicted before loading, measured after it, kept while serving.

Source of the order of events: ``EngineCore._initialize_kv_caches`` of vLLM 0.32.0, which asks every
worker for the bytes of its KV cache once the weights are there.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from typing import TYPE_CHECKING

import torch
from vllm.distributed.parallel_state import is_global_first_rank
from vllm.logger import init_logger
from vllm.v1.core.kv_cache_utils import (
    _max_memory_usage_bytes_from_groups,
    _pool_bytes_per_block,
    get_kv_cache_groups,
)
from vllm.v1.kv_cache_interface import FullAttentionSpec

from vllm_hpu.device.memory import is_out_of_memory, memory_info
from vllm_hpu.distributed import agreement
from vllm_hpu.errors import ConfigurationError
from vllm_hpu.graphs.mode import Mode
from vllm_hpu.memory.measure import Measured, measure, measure_profile
from vllm_hpu.memory.plan import (
    MemoryPlan,
    Need,
    Room,
    planned_blocks,
    share_out,
)
from vllm_hpu.memory.refusal import Prediction, refusal
from vllm_hpu.settings import settings
from vllm_hpu.text import size, table

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.utils.mem_utils import MemorySnapshot

    from vllm_hpu.runner.model_runner import HpuModelRunner

logger = init_logger("vllm.plugins.vllm_hpu.memory")

# Weights that take this much more than there is are refused before they are loaded. A checkpoint
# may hold more than is loaded: layers that predict further tokens, a tower that nobody uses.
CERTAIN = {"checkpoint": 1.1, "sizes": 1.25}
# How often steps are measured with fewer KV blocks each time.
ATTEMPTS = 8


class EngineMemory:
    """Plans the memory of one rank's card.

    Attributes:
        keep_free: bytes that a step takes at once, as measured; 0 before.
        plan: how the card is shared out; None before.
        prediction: of the need that is measured later.
    """

    def __init__(self, config: VllmConfig, mode: Mode, usable: int, start: MemorySnapshot) -> None:
        """``usable``: bytes the engine may take; ``start``: the card before it took any."""
        self.keep_free = 0
        self.plan: MemoryPlan | None = None
        self._config = config
        self._graphs = mode is not Mode.EAGER
        self._reserve = 0.0 if mode is Mode.EAGER else settings().graph_reserved_share
        self._usable, self._total = usable, start.total_memory
        self._used_before = start.total_memory - start.free_memory
        self.prediction = Prediction.of_engine(config, self._graphs)

    def before_loading(self) -> None:
        """Print what is predicted.

        Raises:
            ConfigurationError: the weights alone are far more than there is.
        """
        need = self.prediction.of(self.prediction.ask)
        if need is None:
            self._refuse_weights(self.prediction.weights)
            logger.info("Memory: no prediction for this kind of model; it is measured instead.")
            return
        kv_least = need.kv_least * need.kv_block
        rows = [
            ("weights", need.weights, f"from {self._weights_source()}"),
            ("buffers", need.buffers, "from the limits: token ids, block tables, penalties"),
            ("largest step", need.steps, "from limits and sizes, in the smallest plan"),
            ("sampling", need.sampler, "from --max-num-seqs and the vocabulary"),
            ("first graphs", need.graphs, "a step of each kind, and sampling"),
            (
                "KV cache, least",
                kv_least,
                f"one request of {self.prediction.ask.max_model_len} tokens",
            ),
            ("usable", self._usable, f"of {size(self._total)}"),
        ]
        self._show("Memory per card, predicted before loading:", rows)
        self._refuse_weights(need.weights)

    def _weights_source(self) -> str:
        if self.prediction.weights is None:
            return "the sizes in config.json"
        return "the checkpoint's safetensors files"

    def _refuse_weights(self, weights: int | None) -> None:
        """``weights``: bytes that are predicted for them."""
        certain = CERTAIN["sizes" if self.prediction.weights is None else "checkpoint"]
        if weights is None or weights <= certain * self._usable:
            return
        raise ConfigurationError(
            f"The weights do not fit: they take about {size(weights)} per card (predicted from "
            f"{self._weights_source()}), and {size(self._usable)} of {size(self._total)} may be "
            "used",
            do="Use a smaller or a quantised model, or spread it over more cards with "
            "--tensor-parallel-size",
        )

    @contextmanager
    def while_loading(self) -> Iterator[None]:
        """Out of memory within is a refusal with the limits that fit."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise self._refusal(None) from error

    def determine(self, runner: HpuModelRunner) -> MemoryPlan:
        """Measure steps and share out the card; ``runner.plan`` may become smaller.

        Raises:
            ConfigurationError: not even the smallest plan fits.
        """
        config = self._config
        specs = runner.get_kv_cache_spec()
        groups = get_kv_cache_groups(config, specs)
        block = _pool_bytes_per_block(config, groups)
        least = -(-_max_memory_usage_bytes_from_groups(config, groups) // block) + 1
        room = self._room(block)
        with self.while_loading():
            # Where only the forward is profiled, the steps that are measured hold more.
            profile = measure_profile(runner) if runner.step_inputs is None else 0
        torch.hpu.empty_cache()
        weights = int(runner.model_memory_usage)
        stay = memory_info(runner.device).used_bytes - self._used_before
        # What another process has taken of one card is taken of all: ranks must plan alike.
        left, usable = agreement.least(
            (room.usable - stay if room.kv_bytes is None else room.kv_bytes) // block,
            room.usable,
        )
        room = replace(room, usable=usable)
        limits = runner.plan.limits
        whole = max(limits.decode_blocks, limits.prefill_blocks)
        fewest = max(least, limits.blocks_per_row)
        # Where windows are all there is, rows can be longer than the cache: it bounds no step.
        bound = any(isinstance(spec, FullAttentionSpec) for spec in specs.values())
        blocks = max(fewest, min(whole, left)) if bound else whole
        # Until it is measured: a step that takes all there is, and does not fit.
        unmeasured = max(1, room.usable - stay)
        need = Need(weights, max(0, stay - weights), unmeasured, 0, 0, block, least)
        for attempt in range(ATTEMPTS):
            if blocks < whole:
                runner.plan_up_to(blocks)
            found = _measure(runner)
            if found is None:
                if blocks <= fewest:
                    break
                blocks = max(fewest, blocks // 2)
                continue
            need = _agreed(
                replace(
                    need,
                    buffers=max(0, stay - weights) + found.tables,
                    steps=max(profile, *found.steps.values()),
                    sampler=found.sampler,
                    graphs=self._graph_bytes(runner, found),
                )
            )
            plan = share_out(need, room)
            if bound:
                fewer = planned_blocks(blocks, need, room)
            else:
                fewer = blocks if plan.fits else max(fewest, blocks // 2)
            if plan.fits and (attempt or fewer == blocks):
                if bound and room.kv_bytes is None and plan.kv_blocks < blocks:
                    runner.plan_up_to(max(fewest, plan.kv_blocks))
                self.keep_free, self.plan = need.transient, plan
                self._report(runner, plan, whole)
                return plan
            if fewer >= blocks:
                break
            blocks = fewer
        raise self._refusal(need, blocks, room)

    def before_serving(self, device: torch.device) -> None:
        """Print what is really taken."""
        used, (free, total) = memory_info(device).used_bytes, memory_info(device)
        if is_global_first_rank():
            logger.info(
                "Memory per card before the first request: %s of %s in use, %s free for steps "
                "(at most %s) and further graphs.",
                size(used),
                size(total),
                size(free),
                size(self.keep_free),
            )

    def _graph_bytes(self, runner: HpuModelRunner, found: Measured) -> int:
        """An estimate for the graphs without which there is no first request."""
        if not self._graphs:
            return 0
        sampler = found.sampler if runner.step_sampler is not None else 0
        return sum(found.steps.values()) + sampler

    def _room(self, block: int) -> Room:
        """``block``: bytes of a block of the KV cache, all layers."""
        cache = self._config.cache_config
        chosen = cache.kv_cache_memory_bytes
        if cache.num_gpu_blocks_override is not None:
            chosen = cache.num_gpu_blocks_override * block
        if chosen is None:
            return Room(self._usable, self._reserve)
        # Who chooses the size of the cache is not bound to --gpu-memory-utilization, as in vLLM.
        return Room(self._total - self._used_before, self._reserve, chosen)

    def _refusal(
        self, measured: Need | None, blocks: int | None = None, room: Room | None = None
    ) -> ConfigurationError:
        room = room or Room(self._usable, self._reserve)
        return refusal(self.prediction, room, self._total, measured, blocks)

    def _report(self, runner: HpuModelRunner, plan: MemoryPlan, whole: int) -> None:
        need, limits = plan.need, runner.plan.limits
        rows = [
            ("weights", need.weights, "measured"),
            ("buffers", need.buffers, "measured"),
            ("largest step", need.steps, "measured, operator by operator"),
            ("sampling", need.sampler, "measured with every parameter in use"),
            ("first graphs", need.graphs, "estimated: a step of each kind, and sampling"),
            ("KV cache", plan.kv, f"{plan.kv_blocks} blocks"),
            ("free", plan.reserve, self._why_free()),
        ]
        self._show("Memory per card, measured after loading:", rows)
        planned = max(limits.decode_blocks, limits.prefill_blocks)
        if planned < whole:
            logger.info(
                "Steps are planned up to %d KV blocks, not %d: more do not fit beside the weights. "
                "Requests that would exceed that wait for the next step.",
                planned,
                whole,
            )

    def _why_free(self) -> str:
        if self._graphs:
            return f"for later graphs (VLLM_GRAPH_RESERVED_MEM={self._reserve:g})"
        return "left by the KV cache"

    @staticmethod
    def _show(title: str, rows: list[tuple[str, int, str]]) -> None:
        if is_global_first_rank():
            shown = [(name, size(number), source) for name, number, source in rows]
            logger.info("%s\n%s", title, table(shown, "lrl"))


def _measure(runner: HpuModelRunner) -> Measured | None:
    """None when a card of any rank has not enough memory for the steps alone."""
    found: Measured | None
    try:
        found = measure(runner)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        found = None
    if found is None:
        gc.collect()
        torch.hpu.empty_cache()
    (everywhere,) = agreement.least(int(found is not None))
    return found if everywhere else None


def _agreed(need: Need) -> Need:
    """The larger need of all ranks, part by part, so that all of them plan alike."""
    return Need(*(-value for value in agreement.least(*(-part for part in astuple(need)))))
