"""The scheduler keeps steps within the plan: vLLM's own, with requests that share prefixes."""

from __future__ import annotations

import random
from dataclasses import astuple

import pytest
import torch

from models.tiny import build

SIZE, ROWS, BLOCKS, LONGEST, TOKENS = 16, 12, 60, 512, 128


@pytest.fixture(scope="module")
def vllm_config(model_directory):
    from vllm.engine.arg_utils import EngineArgs

    from vllm_hpu import compat

    compat.install()
    return EngineArgs(
        model=str(build("llama", model_directory)),
        max_model_len=LONGEST,
        max_num_seqs=ROWS,
        max_num_batched_tokens=TOKENS,
        block_size=SIZE,
        num_gpu_blocks_override=BLOCKS,
        async_scheduling=False,
    ).create_engine_config()


@pytest.fixture
def plan(vllm_config):
    from vllm_hpu.engine_plan import plan_for

    return plan_for(vllm_config, num_blocks=40)


def scheduler_of(vllm_config, bounds):
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    from vllm_hpu.compat.step_bounds import BOUNDS

    vllm_config.additional_config = {} if bounds is None else {BOUNDS: astuple(bounds)}
    vllm_config.cache_config.num_gpu_blocks = BLOCKS
    spec = FullAttentionSpec(block_size=SIZE, num_kv_heads=1, head_size=16, dtype=torch.float32)
    cache = KVCacheConfig(BLOCKS, [], [KVCacheGroupSpec(["layer"], spec)])
    return Scheduler(vllm_config, cache, StructuredOutputManager(vllm_config), SIZE)


def requests(seed, alike=True):
    from vllm import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.request import Request

    init_none_hash(sha256)
    draw = random.Random(seed)
    shared = [draw.randint(5, 400) for _ in range(320)]
    for number in range(40):
        prompt = shared[: draw.choice((0, 160, 320, 320))]
        if not alike:
            prompt = [draw.randint(5, 400) for _ in prompt]
        prompt = prompt + [draw.randint(5, 400) for _ in range(draw.randint(1, 100))]
        wishes = SamplingParams(max_tokens=draw.randint(1, 30), ignore_eos=True)
        wishes.update_from_generation_config({}, 1)
        yield Request(
            f"r{number}",
            prompt,
            wishes,
            None,
            block_hasher=get_request_block_hasher(SIZE, sha256),
        )


def run(scheduler, seed, everyone=None):
    """Every step's numbers, until all requests are answered."""
    from vllm.v1.outputs import ModelRunnerOutput

    from vllm_hpu.shapes.step import step_of

    everyone = everyone or {request.request_id: request for request in requests(seed)}
    waiting = list(everyone.values())
    draw, steps = random.Random(seed + 1), []
    while waiting or scheduler.has_requests():
        for _ in range(min(len(waiting), draw.choice((0, 1, 4)))):
            scheduler.add_request(waiting.pop(0))
        output = scheduler.schedule()
        running = {request.request_id for request in scheduler.running}
        names = list(output.num_scheduled_tokens)
        assert set(names) <= running, "what runs is on the list"
        assert len(running) <= ROWS
        scheduled = [output.num_scheduled_tokens[name] for name in names]
        ends = [everyone[name].num_computed_tokens for name in names]
        computed = [end - new for end, new in zip(ends, scheduled, strict=True)]
        if names:
            steps.append(step_of(scheduled, computed, SIZE, 1))
        sampled = [[7] if everyone[name].num_computed_tokens >= everyone[name].num_tokens else []
                   for name in names]  # fmt: skip
        places = {name: at for at, name in enumerate(names)}
        scheduler.update_from_output(output, ModelRunnerOutput(names, places, sampled))
        assert len(steps) < 5000, "the scheduler makes no progress"
    for request in everyone.values():
        assert request.is_finished()
        assert request.num_output_tokens == request.max_tokens
    return steps


@pytest.mark.parametrize("seed", range(3))
def test_every_step_is_in_the_plan(vllm_config, plan, seed):
    from vllm_hpu.shapes.step_budget import StepBounds

    steps = run(scheduler_of(vllm_config, StepBounds.of(plan.limits)), seed)
    for step in steps:
        assert plan.dispatch(step) in plan, step


def test_a_full_cache_still_preempts(vllm_config):
    """Rows that share nothing fill the cache: some are preempted, with the guard as without it."""
    from vllm_hpu.shapes.step_budget import StepBounds

    everyone = {request.request_id: request for request in requests(3, alike=False)}
    bounds = StepBounds(SIZE, 1, decode_blocks=BLOCKS, prefill_blocks=BLOCKS)
    for step in run(scheduler_of(vllm_config, bounds), 3, everyone):
        assert step.decode_blocks + step.prefill_blocks <= BLOCKS
    assert sum(request.num_preemptions for request in everyone.values()) > 0


def test_without_bounds_steps_leave_the_plan(vllm_config, plan):
    """What the guard is for: rows that share a prefix have more blocks than the whole cache."""
    steps = run(scheduler_of(vllm_config, None), seed=0)
    outside = [step for step in steps if plan.dispatch(step) not in plan]
    assert outside
    assert max(step.decode_blocks + step.prefill_blocks for step in steps) > BLOCKS
