"""What an engine in this process predicted of itself, and what its device counts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gaudi_emulator

from vllm_hpu.engine_plan import shape_of
from vllm_hpu.ops.derived import Derives
from vllm_hpu.runner.dummy_batch import prepare_blank_step
from vllm_hpu.shapes.cost import CostModel


def predictions(engine: Any) -> dict[str, Any]:
    """Bytes of the memory plan, and operations and bytes of each key's forward, both ways."""
    core = engine.llm_engine.engine_core.engine_core
    worker = core.model_executor.driver_worker.worker
    runner, memory = worker.model_runner, worker.memory
    limits = runner.plan.limits
    blocks = max(limits.decode_blocks, limits.prefill_blocks)
    model = shape_of(runner.vllm_config)
    cost = CostModel(model, limits.block_size, limits.query_len)
    steps = {}
    for key in runner.plan.keys:
        prepare_blank_step(runner, key)
        with gaudi_emulator.measure() as counted:
            runner.cudagraph_manager.launch(runner.cudagraph_manager.descriptor(key, 0))
        expected = cost.key(key)
        steps[str(key)] = {
            "flops": [expected.flops, counted.cost.matrix_flops],
            "bytes": [expected.bytes, counted.cost.bytes],
            "unknown": sorted(counted.unknown),
        }
    return {
        "predicted": asdict(memory.prediction.of(memory.prediction.ask, blocks)),
        "measured": asdict(memory.plan.need),
        "parameters": sum(one.nbytes for one in runner.model.parameters()),
        "derived": derived_bytes(runner.model),
        "steps": steps,
    }


def derived_bytes(model: Any) -> int:
    """Tables of rotary angles in the model's type, which layers derive when a model is loaded."""
    tables = {
        table.data_ptr(): table.nbytes
        for layer in model.modules()
        if isinstance(layer, Derives)
        for name, table in layer.named_buffers(recurse=False)
        if name == "cos_sin_per_element"
    }
    return sum(tables.values())
