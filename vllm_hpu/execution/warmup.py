"""Warm-up: launch every planned key once, so that no request waits for a compilation."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm
from vllm.distributed.parallel_state import is_global_first_rank
from vllm.logger import init_logger

from vllm_hpu.device.memory import memory_info
from vllm_hpu.device.metrics import compilations
from vllm_hpu.execution.mode import Mode
from vllm_hpu.runner.blank import prepare_blank_step
from vllm_hpu.settings import settings

if TYPE_CHECKING:
    from vllm_hpu.runner.model_runner import HpuModelRunner

logger = init_logger("vllm.plugins.vllm_hpu.warmup")

GIB = 1 << 30


@torch.inference_mode()
def warm_up(runner: HpuModelRunner) -> float:
    """Compile what the plan names; returns the seconds it took.

    Eager mode compiles nothing ahead. ``VLLM_SKIP_WARMUP`` leaves compilation to the first request
    that needs a shape.
    """
    if runner.mode.mode is Mode.EAGER:
        logger.info("No warm-up: %s.", runner.mode.reason)
        return 0.0
    if settings().skip_warmup:
        logger.warning(
            "VLLM_SKIP_WARMUP is set: shapes compile when a request first needs them, and that "
            "request waits."
        )
        return 0.0
    start = time.perf_counter()
    before = compilations()
    free_before = memory_info(runner.device).free_bytes
    cases = [(key, loras) for key in runner.plan.keys for loras in sorted(set(runner.lora_cases))]
    bar = tqdm(
        cases,
        desc=f"Warm-up ({runner.mode.mode.value})",
        unit="graph",
        # A log file gets a line every five seconds instead of ten a second.
        mininterval=0.1 if sys.stderr.isatty() else 5,
        disable=not is_global_first_rank(),
    )
    manager = runner.cudagraph_manager
    if manager is None:
        raise RuntimeError("warm-up needs the KV cache, and it is not allocated yet")
    for key, loras in bar:
        bar.set_postfix_str(
            f"{key}, free {memory_info(runner.device).free_bytes / GIB:.2f} GiB", refresh=False
        )
        with runner.dummy_loras(loras, key.tokens):
            prepare_blank_step(runner, key)
            manager.run_fullgraph(manager.descriptor(key, loras))
    torch.hpu.synchronize()
    seconds = time.perf_counter() - start
    logger.info(
        "Warm-up: %d planned shapes, %d compilations, %.1f s, %.2f GiB.",
        len(cases),
        compilations() - before,
        seconds,
        (free_before - memory_info(runner.device).free_bytes) / GIB,
    )
    return seconds
