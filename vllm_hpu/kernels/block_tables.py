"""Block tables and slot mappings of a step: methods that replace those of vLLM's `BlockTables`.

Whole methods, not kernels: vLLM hands its kernels tables of raw pointers, one per KV cache group,
which no torch operator can follow. The tensors behind the pointers are attributes of the object.
"""

import torch
from vllm.v1.attention.backends.utils import PAD_SLOT_ID
from vllm.v1.worker.gpu.block_table import BlockTables

from vllm_hpu.kernels.rows import lookup, rows_of, take, with_pad


def gather_block_tables(
    self: BlockTables,
    idx_mapping: torch.Tensor,
    num_reqs_padded: int,
    out: tuple[torch.Tensor, ...] | None = None,
    out_ptrs: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """Block tables of the step's rows, one tensor [num_reqs_padded, blocks] int32 per group.

    Replaces `BlockTables.gather_block_tables`. idx_mapping: [R] state rows, R <= num_reqs_padded;
    rows behind R are zero (the null block). Entries behind a request's own blocks are whatever the
    state row holds, as in vLLM. `out` are the tensors to fill, the persistent ones by default;
    `out_ptrs` has no use here.
    """
    targets = self.input_block_tables if out is None else out
    num_rows = idx_mapping.shape[0]
    for table, target in zip(self.block_tables, targets, strict=True):
        torch.index_select(table.gpu, 0, idx_mapping, out=target[:num_rows])
        if num_rows < num_reqs_padded:
            target[num_rows:num_reqs_padded].zero_()
    return tuple(target[:num_reqs_padded] for target in targets)


def compute_slot_mappings(
    self: BlockTables,
    idx_mapping: torch.Tensor,
    query_start_loc: torch.Tensor,
    positions: torch.Tensor,
    num_tokens_padded: int,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Slot in the KV cache of each token, [groups, num_tokens_padded] int64.

    Replaces `BlockTables.compute_slot_mappings`. slot = block * block_size + offset in the block.
    Tokens of no row, of rows with idx_mapping < 0 and of groups without slot mapping get
    PAD_SLOT_ID (-1), so does the rest of the buffer.
    idx_mapping: [R]; query_start_loc: [>= R + 1] int32; positions: [>= num_tokens_padded] int64;
    out: [groups, >= num_tokens_padded] int64, the persistent buffer by default.
    """
    slots = self.slot_mappings if out is None else out
    if self.num_kv_cache_groups == 0:
        return slots[:, :num_tokens_padded]
    if self.cp_size != 1:
        raise NotImplementedError(
            "Slot mappings under decode context parallelism are not implemented for Gaudi. "
            "Start without --decode-context-parallel-size and --prefill-context-parallel-size."
        )
    row = rows_of(query_start_loc, idx_mapping.shape[0], num_tokens_padded)
    state = take(with_pad(idx_mapping, -1), row)
    nowhere = state < 0
    state = state.masked_fill(nowhere, 0)
    position = positions[:num_tokens_padded]
    for group, table in enumerate(self.block_tables):
        if not self._slot_mapping_enabled[group]:
            slots[group].fill_(PAD_SLOT_ID)
            continue
        block_size = self.block_sizes[group]
        column = torch.div(position, block_size, rounding_mode="floor")
        block = lookup(table.gpu, state, column)
        # position - column * size is the offset in the block; avoids a second division.
        slot = (block - column) * block_size + position
        slots[group, :num_tokens_padded] = slot.masked_fill_(nowhere, PAD_SLOT_ID)
        slots[group, num_tokens_padded:].fill_(PAD_SLOT_ID)
    return slots[:, :num_tokens_padded]
