"""Block tables, slot mappings and staged writes."""

import torch
from vllm.v1.worker.gpu.block_table import BlockTables
from vllm.v1.worker.gpu.buffer_utils import StagedWriteTensor

from tests.oracle.case import Make, Outputs, case
from tests.oracle.case_inputs import LAYOUTS, LONGEST, STATES, TOKENS, Step


def block_tables(make: Make, sizes: list[int], enabled: list[bool] | None = None) -> BlockTables:
    """Tables with random distinct blocks for every state row but the dump row."""
    widths = [-(-LONGEST // size) for size in sizes]
    tables = BlockTables(sizes, STATES, TOKENS, widths, make.device, slot_mapping_enabled=enabled)
    for state in range(STATES - 1):
        blocks = tuple(
            (torch.randperm(500, generator=make.generator)[:width] + 1).tolist() for width in widths
        )
        tables.append_block_ids(state, blocks, overwrite=True)
    tables.apply_staged_writes()
    return tables


@case(([16],), ([16, 32],))
def staged_block_tables(make: Make, sizes: list[int]) -> Outputs:
    tables = block_tables(make, sizes)
    tables.append_block_ids(2, tuple([7, 8] for _ in sizes), overwrite=True)
    tables.apply_staged_writes()
    return {str(i): table.gpu for i, table in enumerate(tables.block_tables)}


@case((torch.int32,), (torch.int64,), (torch.float32,))
def staged_values(make: Make, dtype: torch.dtype) -> Outputs:
    tensor = StagedWriteTensor((5, 7), dtype, make.device)
    scale = 0.37 if dtype is torch.float32 else 3
    tensor.stage_write(3, 2, [-scale, 5 * scale, scale])
    tensor.stage_write(0, 0, [scale * i for i in range(7)])
    tensor.apply_write()
    once = tensor.gpu.clone()
    tensor.stage_write_elem(4, 9 * scale)
    tensor.apply_write()
    tensor.apply_write()
    return {"once": once, "twice": tensor.gpu}


@case(*[(layout, sizes) for layout, _ in LAYOUTS for sizes in ([16], [16, 32])])
def gather_block_tables(make: Make, layout: str, sizes: list[int]) -> Outputs:
    tables, step = block_tables(make, sizes), Step(make, layout)
    padded = tables.gather_block_tables(step.idx[: step.real], step.real + 2)
    return {str(i): table for i, table in enumerate(padded)}


@case(*[(layout, sizes) for layout, _ in LAYOUTS for sizes in ([16], [16, 48])])
def slot_mappings(make: Make, layout: str, sizes: list[int]) -> Outputs:
    tables, step = block_tables(make, sizes), Step(make, layout)
    pos = make.ints(0, LONGEST, TOKENS, dtype=torch.int64)
    slots = tables.compute_slot_mappings(step.idx, step.starts, pos, TOKENS)
    return {"slots": slots}


@case()
def slot_mappings_disabled_and_skipped(make: Make) -> Outputs:
    tables, step = block_tables(make, [16, 16], enabled=[True, False]), Step(make, "mixed")
    step.idx[2] = -1
    pos = make.ints(0, LONGEST, TOKENS, dtype=torch.int64)
    out = make.ints(0, 9, 2, TOKENS, dtype=torch.int64)
    tables.compute_slot_mappings(step.idx, step.starts, pos, step.num_tokens + 3, out=out)
    return {"whole": out}
