"""Attention traced with the layer around it: a step's plans are inputs, nothing is baked in."""

from __future__ import annotations

from typing import Any

import habana_frameworks.torch  # noqa: F401  (brings the hpu device)
import pytest
import torch
from gaudi_emulator import counters

from vllm_hpu.attention.impl import HpuAttentionImpl

from .attention_case import Case, Row, Step, impl_for, make, reference
from .conftest import emulated_only

pytestmark = [emulated_only, pytest.mark.usefixtures("compiling")]


def steps_of_one_shape(first: list[Row], second: list[Row], **more: Any) -> list[Step]:
    """Two steps that differ in lengths, blocks and values, with tensors of one shape."""
    steps = [
        make(Case(rows, seed=seed, **more), "hpu") for seed, rows in enumerate((first, second))
    ]
    width = max(step.metadata.block_table.shape[1] for step in steps)
    blocks = max(step.cache.shape[0] for step in steps)
    for step in steps:
        table = step.metadata.block_table
        step.metadata.block_table = torch.nn.functional.pad(table, (0, width - table.shape[1]))
        room = torch.zeros(blocks, *step.cache.shape[1:], device="hpu")
        room[: step.cache.shape[0]] = step.cache
        step.cache = room
    shapes = [step.metadata.shape for step in steps]
    steps[1].metadata.shape = steps[0].metadata.shape = type(shapes[0])(
        shapes[0].tokens,
        shapes[0].decode_rows,
        shapes[0].decode_queries,
        max(shape.decode_blocks for shape in shapes),
        shapes[0].has_prefill,
        max(shape.prefill_blocks for shape in shapes),
    )
    return steps


@pytest.mark.parametrize("window", [None, 24])
@pytest.mark.parametrize("rows", ["decode", "mixed"])
def test_another_step_of_the_shape_compiles_nothing_and_is_right(
    rows: str, window: int | None
) -> None:
    first, second = {
        "decode": ([Row(30, 1), Row(80, 1)], [Row(61, 1), Row(7, 1)]),
        "mixed": ([Row(30, 1), Row(20, 25)], [Row(55, 1), Row(3, 25)]),
    }[rows]
    steps = steps_of_one_shape(first, second, window=window, sinks=True)
    impl = impl_for(steps[0].case, steps[0].sinks)

    def layer(query: Any, key: Any, value: Any, cache: Any, plans: Any) -> Any:
        return 2 * impl.attend_traced(query, key, value, cache, plans)

    run = torch.compile(layer, backend="hpu_backend", dynamic=False, fullgraph=True)
    plans = [step.metadata.plans(impl.need(step.cache, step.query.dtype)) for step in steps]
    before = counters()
    for number, (step, plan) in enumerate(zip(steps, plans, strict=True)):
        step.sinks = steps[0].sinks
        found = run(step.query, step.key, step.value, step.cache, plan) / 2
        expected = reference(step)
        torch.testing.assert_close(
            found.cpu().double()[: expected.shape[0]], expected, rtol=0, atol=2e-6
        )
        done = counters() - before
        assert done.total_compilations == 1
        assert done.region_launches == number + 1


def test_the_step_is_in_the_cache_afterwards() -> None:
    """A later step that reads the cache only finds what the compiled one wrote."""
    [step, _] = steps_of_one_shape([Row(9, 1), Row(0, 33)], [Row(4, 1), Row(0, 33)])
    impl = impl_for(step.case, None)
    run = torch.compile(impl.attend_traced, backend="hpu_backend", dynamic=False, fullgraph=True)
    need = impl.need(step.cache, step.query.dtype)
    run(step.query, step.key, step.value, step.cache, step.metadata.plans(need))
    reader = HpuAttentionImpl(
        step.case.heads,
        step.case.width,
        step.case.scale,
        step.case.kv_heads,
        kv_sharing_target_layer_name="first",
    )
    output, junk = torch.empty_like(step.query), torch.full_like(step.key, 9.0)
    reader.forward(None, step.query, junk, junk, step.cache, step.metadata, output)
    torch.testing.assert_close(output.cpu().double(), reference(step), rtol=0, atol=2e-6)
