"""Warm-up as a service: compiles the graphs of the plan, one at a time, best first.

A server answers once the covering set is compiled; the engine core then asks for one graph after
another in idle gaps (``warmup/idle.py``). Every rank has a service, and all of them compile the
same graph at the same place among the steps.
"""

from __future__ import annotations

import gc
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm
from vllm import envs
from vllm.distributed.parallel_state import is_global_first_rank
from vllm.logger import init_logger

from vllm_hpu.device.compile_only import compile_only
from vllm_hpu.device.memory import (
    allocated_bytes,
    is_out_of_memory,
    memory_info,
    peak_bytes,
    reset_peak,
)
from vllm_hpu.device.metrics import compilations
from vllm_hpu.distributed import agreement
from vllm_hpu.errors import ConfigurationError
from vllm_hpu.metrics.progress import WarmupProgress
from vllm_hpu.options import settings_of
from vllm_hpu.runner.dummy_batch import prepare_blank_step
from vllm_hpu.settings import settings
from vllm_hpu.shapes.ready import ReadySet, padded_work
from vllm_hpu.warmup.budget import GIB, Budget
from vllm_hpu.warmup.fingerprint import graph_facts
from vllm_hpu.warmup.manifest import GraphRecord, Manifest, fingerprint
from vllm_hpu.warmup.order import Case, WarmUpOrder

if TYPE_CHECKING:
    from vllm_hpu.runner.graph_manager import HpuGraphManager
    from vllm_hpu.runner.model_runner import HpuModelRunner

logger = init_logger("vllm.plugins.vllm_hpu.warmup")


class WarmUp:
    """The service of one rank.

    Attributes:
        progress: how far it has come.
    """

    def __init__(self, runner: HpuModelRunner, keep_free: int = 0) -> None:
        """``keep_free``: bytes that a step takes beside the graphs, at most."""
        if runner.cudagraph_manager is None:
            raise RuntimeError("warm-up needs the KV cache, and it is not allocated yet")
        self._runner = runner
        self._manager: HpuGraphManager = runner.cudagraph_manager
        own = settings_of(runner.vllm_config)
        recipes = own.recipe_cache
        folder = Path(recipes) if recipes else Path(envs.VLLM_CACHE_ROOT) / "hpu_warmup"
        facts = graph_facts(
            runner.vllm_config,
            runner.plan.limits,
            runner.mode.mode,
            runner.kv_cache_config.num_blocks,
        )
        self._manifest = Manifest.load(folder, fingerprint(facts))
        self._order = WarmUpOrder(
            runner.plan,
            sorted(set(runner.lora_cases)),
            padded_work,
            self._manifest.graphs if recipes else (),
        )
        self._ready = {loras > 0: ReadySet(runner.plan, padded_work) for loras in runner.lora_cases}
        self._manager.ready = self._ready
        self._budget = Budget(own.warmup_seconds, own.warmup_bytes)
        self._room, self._reserve, self._small_bytes = 0, keep_free, 0
        self._refusal = ""
        self.progress = WarmupProgress(planned=len(self._order.cases))

    @torch.inference_mode()
    def before_serving(self, everything: bool) -> float:
        """Compile the covering set, or all that the budget allows; returns the seconds it took.

        Raises:
            ConfigurationError: the covering set does not fit into the card's memory.
        """
        compiled = compilations()
        total = len(self._order if everything else self._order.covering)
        with tqdm(
            total=total,
            desc=f"Warm-up ({self._runner.mode.mode.value})",
            unit="graph",
            # A log file gets a line every five seconds instead of ten a second.
            mininterval=0.1 if sys.stderr.isatty() else 5,
            disable=not is_global_first_rank(),
        ) as bar:
            while everything or not self._order.covered:
                case = self._next()
                if case is None:
                    break
                free = memory_info(self._runner.device).free_bytes
                bar.set_postfix_str(
                    f"{case}, {self._seconds_left(total - bar.n):.0f} s left, "
                    f"free {free / GIB:.2f} GiB",
                    refresh=False,
                )
                self._compile(case)
                bar.update()
                if case == self._order.covering[-1]:
                    self._measure_sampler()
        logger.info(
            "Warm-up: %d of %d planned shapes ready, %d compilations, %.1f s, %.2f GiB.%s",
            self.progress.ready,
            self.progress.planned,
            compilations() - compiled,
            self.progress.seconds,
            self.progress.bytes / GIB,
            "" if self.progress.finished else " The others follow in idle gaps.",
        )
        if not settings().recipe_cache:
            logger.info(
                "Compiled graphs are not kept for the next start. To keep them, set "
                "PT_HPU_RECIPE_CACHE_CONFIG=%s/hpu_recipes,false,8192",
                envs.VLLM_CACHE_ROOT,
            )
        return self.progress.seconds

    @torch.inference_mode()
    def one(self) -> WarmupProgress:
        """Compile the next graph, if any is left that fits."""
        case = self._next()
        if case is not None:
            self._compile(case)
        return self.progress

    def _next(self) -> Case | None:
        """The next case, the same on all ranks; None, and an end, when there is none."""
        # What a request had to compile meanwhile is done.
        for pending in self._order:
            if pending.key in self._ready[pending.loras > 0]:
                self._order.done(pending)
                self.progress.compiled += 1
        self._refusal = ""
        case = self._order.choose(self._missed, self._fits)
        cases = self._order.cases
        index = agreement.from_first_rank(-1 if case is None else cases.index(case))
        if index >= 0:
            return cases[index]
        if not self.progress.finished:
            self._finish()
        return None

    def _finish(self) -> None:
        while self._warm_small():
            pass
        self.progress.finished = True
        left = list(self._order)
        self.progress.dropped += len(left)
        for case in left:
            self._order.drop(case)
        if left:
            logger.warning(
                "Warm-up ends with %d of %d planned shapes: %s. Steps of the others run in larger "
                "graphs.",
                self.progress.ready,
                self.progress.planned,
                self._refusal or "no more room",
            )

    def _missed(self, case: Case) -> int:
        return self._ready[case.loras > 0].missed.get(case.key, 0)

    def _fits(self, case: Case) -> bool:
        known = self._manifest.graphs.get(str(case))
        refusal = self._budget.refusal(
            self.progress.seconds,
            self.progress.bytes,
            known.seconds if known else self._usual_seconds(),
            known.bytes if known else self._order.bytes_bound(case),
            self._room,
        )
        self._refusal = refusal or self._refusal
        return not refusal

    def _usual_seconds(self) -> float:
        return self.progress.seconds / max(1, self.progress.ready)

    def _seconds_left(self, graphs: int) -> float:
        return self._usual_seconds() * graphs

    def _compile(self, case: Case) -> None:
        """Compile ``case`` on all ranks; one that does not fit is dropped with what is larger."""
        device = self._runner.device
        covered = self._order.covered
        used, before = memory_info(device).used_bytes, compilations()
        start = time.perf_counter()
        if not covered:
            reset_peak(device)
        fits = self._try(case, launch=not covered)
        if covered:
            self._warm_small()
        seconds = time.perf_counter() - start
        if not fits:
            gc.collect()
            torch.hpu.empty_cache()
        if not covered and fits:
            self._reserve = max(self._reserve, peak_bytes(device) - allocated_bytes(device))
        free = memory_info(device).free_bytes
        everywhere, self._room = agreement.least(int(fits), free - self._reserve)
        self.progress.seconds += seconds
        if not everywhere:
            self._drop(case)
            return
        kept = max(0, memory_info(device).used_bytes - used)
        cached = compilations() == before
        self.progress.bytes += kept
        self.progress.compiled += not cached
        self.progress.cached += cached
        self._order.done(case, kept)
        self._ready[case.loras > 0].add(case.key)
        if is_global_first_rank():
            self._manifest.record(str(case), GraphRecord(round(seconds, 4), kept, cached))

    def _try(self, case: Case, launch: bool) -> bool:
        """Run the graph on a step of padding; False when the card's memory is not enough."""
        try:
            # The covering set is launched, which shows what the largest steps need.
            with (
                nullcontext() if launch else compile_only(),
                self._runner.adapters_on(case.loras > 0),
            ):
                prepare_blank_step(self._runner, case.key)
                self._manager.launch(self._manager.descriptor(case.key, case.loras))
                for part in self._runner.keyed_graphs:
                    part.launch(case.key)
                torch.hpu.synchronize()
        except Exception as error:
            if is_out_of_memory(error):
                return False
            raise
        return True

    def _warm_small(self) -> bool:
        """Compile the next graph beside the forwards; False when no rank has one left that fits.

        Ranks may have different ones or none (stages of a pipeline), and agree all the same.
        """
        # The largest come first, so no later one takes more.
        room = self._small_bytes <= self._room
        parts = (part for part in self._runner.small_graphs if room or not part.takes_room)
        used = self._used()
        more = any(part.warm_up_one() for part in parts)
        least, none_left = agreement.least(-max(0, self._used() - used), int(not more))
        self._small_bytes = max(self._small_bytes, -least)
        self._room += least
        return not none_left

    def _used(self) -> int:
        return memory_info(self._runner.device).used_bytes

    def _measure_sampler(self) -> None:
        """Sample for all rows at once: what that needs must stay free, too.

        Raises:
            ConfigurationError: on all ranks, when it is too much for one of them.
        """
        device, largest, fits = self._runner.device, 0, True
        reset_peak(device)
        before = allocated_bytes(device)
        try:
            largest = self._sample_for_all_rows()
            torch.hpu.synchronize()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            fits = False
        self._reserve = max(self._reserve, peak_bytes(device) - before)
        free = memory_info(device).free_bytes
        everywhere, self._room, least = agreement.least(int(fits), free - self._reserve, -largest)
        self._small_bytes = max(self._small_bytes, -least)
        if not everywhere:
            raise self._too_large("Sampling for all rows")

    def _sample_for_all_rows(self) -> int:
        """Sample or pool, as a pipeline's last stage does; the most bytes that a graph kept."""
        runner, largest = self._runner, 0
        if not runner.is_last_pp_rank:
            return largest
        # The first of each kind can do any step's work.
        for part in runner.first_graphs:
            used = self._used()
            part.warm_up_one()
            largest = max(largest, self._used() - used)
        if runner.step_sampler is None and runner.sampler is not None:
            hidden = torch.zeros(
                runner.scheduler_config.max_num_seqs,
                runner.model_config.get_hidden_size(),
                dtype=runner.dtype,
                device=runner.device,
            )
            runner._dummy_sampler_run(hidden)
        return largest

    def _too_large(self, what: str) -> ConfigurationError:
        free = memory_info(self._runner.device).free_bytes
        return ConfigurationError(
            f"{what} does not fit into the device's memory",
            f"{free / GIB:.2f} GiB are free beside the weights and the KV cache",
            "Lower --max-num-batched-tokens, --max-num-seqs or --max-model-len, or leave more "
            "room with a lower --gpu-memory-utilization or --kv-cache-memory-bytes",
        )

    def _drop(self, case: Case) -> None:
        if case in self._order.covering:
            raise self._too_large(f"The graph for the largest steps ({case})")
        dropped = self._order.drop(case)
        self.progress.dropped += len(dropped)
        logger.warning(
            "The graph %s does not fit into the device's memory. Dropped with it: %d larger ones. "
            "Their steps run in other graphs.",
            case,
            len(dropped) - 1,
        )
