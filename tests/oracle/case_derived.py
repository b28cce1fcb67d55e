"""A step's inputs as a whole: vLLM's sequence of kernels against ours, which is one region.

The state tensors are those of a step that has come about by steps before: the last sampled token
is the last known one, and what follows the known tokens are drafts.
"""

import torch
from vllm.v1.worker.gpu import input_batch

from tests.oracle.case import Make, Outputs, case
from tests.oracle.case_inputs import LAYOUTS, ROWS, STATES, TOKENS, Step
from tests.oracle.case_tables import block_tables

WIDTH = 4  # one place for logits, and one per draft
SIZES = [16, 32]


class Request:
    """What is known of every request of a step."""

    def __init__(self, make: Make, layout: str) -> None:
        self.step = step = Step(make, layout)
        self.tables = block_tables(make, SIZES, enabled=[True, layout != "mixed"])
        self.drafts = make.ints(0, 1000, STATES, WIDTH - 1, dtype=torch.int64)
        total = [1] * STATES
        for state, (length, prompt, computed, drafts) in zip(
            step.idx.tolist(), step.rows, strict=True
        ):
            total[state] = max(prompt, computed + length - drafts)
        self.total = make.made(total, dtype=torch.int32)
        at = (self.total - 1).clamp_min(0).to(torch.int64)[:, None]
        self.last = step.token_ids.gather(1, at).to(torch.int64)
        self.logits = [1 + row[3] for row in step.rows]


def by_kernels(request: Request) -> Outputs:
    """As vLLM's runner prepares a step."""
    step, device = request.step, request.total.device
    ids = torch.zeros(TOKENS, dtype=torch.int32, device=device)
    positions = torch.zeros(TOKENS, dtype=torch.int64, device=device)
    lengths = torch.zeros(ROWS, dtype=torch.int32, device=device)
    following = torch.zeros(1, STATES, dtype=torch.int32, device=device)
    idx, starts, tables = step.idx, step.starts, request.tables
    input_batch.prepare_prefill_inputs(
        ids, following, idx, starts, step.token_ids, step.prompt_len, step.computed
    )
    input_batch.prepare_pos_seq_lens(idx, starts, step.computed, positions, lengths)
    places = input_batch.combine_sampled_and_draft_tokens(
        ids,
        idx,
        request.last,
        starts,
        lengths,
        step.prompt_len,
        request.drafts,
        step.cu_logits,
        step.num_logits,
    )
    rows = tables.gather_block_tables(idx, ROWS)
    slots = tables.compute_slot_mappings(idx, starts, positions, TOKENS)
    return outputs(request, ids, positions, lengths, places, rows, slots)


def by_region(request: Request) -> Outputs:
    """As one part of the forward."""
    from vllm_hpu.step.inputs import CacheTables, Known, RowInputs, TokenInputs, derive_inputs

    step, device, tables = request.step, request.total.device, request.tables

    def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    missing = ROWS - len(step.rows)
    states = [*step.idx.tolist(), *[STATES - 1] * missing]
    logits = [*request.logits, *[1] * missing]
    numbers = torch.tensor([*states, *step.starts.tolist(), *logits], dtype=torch.int32)
    rows = RowInputs(
        zeros(ROWS, dtype=torch.int64),
        zeros(ROWS + 1),
        zeros(ROWS),
        zeros(ROWS),
        zeros(ROWS * WIDTH, dtype=torch.int64),
    )
    tokens = TokenInputs(
        zeros(TOKENS), zeros(TOKENS, dtype=torch.int64), zeros(TOKENS, dtype=torch.bool)
    )
    slots = zeros(len(SIZES), TOKENS, dtype=torch.int64)
    gathered = [zeros(ROWS, table.gpu.shape[1]) for table in tables.block_tables]
    sizes = tuple(
        size if on else 0 for size, on in zip(SIZES, tables._slot_mapping_enabled, strict=True)
    )
    derive_inputs(
        numbers.to(device),
        Known(step.computed, request.total, step.token_ids, request.drafts),
        rows,
        tokens,
        CacheTables([table.gpu for table in tables.block_tables], gathered, slots, sizes),
    )
    places = rows.logit_token.view(ROWS, WIDTH)
    used = [places[row, :count] for row, count in enumerate(request.logits)]
    return outputs(
        request,
        tokens.input_ids,
        tokens.positions,
        rows.seq_lens,
        torch.cat(used),
        gathered,
        slots,
    )


def outputs(
    request: Request,
    ids: torch.Tensor,
    positions: torch.Tensor,
    lengths: torch.Tensor,
    places: torch.Tensor,
    rows: list[torch.Tensor],
    slots: torch.Tensor,
) -> Outputs:
    """What of these a forward reads: no more than real tokens and rows, but for slots."""
    count, real = request.step.num_tokens, request.step.real
    # A padding row has no token of its own, so its place means nothing.
    sampled = sum(request.logits[:real])
    found = {
        "input_ids": ids[:count],
        "positions": positions[:count],
        "seq_lens": lengths[:real],
        "logits": places[:sampled].to(torch.int64),
        "slots": slots,
    }
    return found | {f"table {group}": table[:real] for group, table in enumerate(rows)}


@case(*[(layout,) for layout, _ in LAYOUTS])
def derived_inputs(make: Make, layout: str) -> Outputs:
    request = Request(make, layout)
    return by_kernels(request) if make.device.type == "cpu" else by_region(request)
