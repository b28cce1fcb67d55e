"""A step without requests, for warm-up: the shapes of a planned key, every row a padding row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from vllm.config.compilation import CUDAGraphMode
from vllm.v1.worker.gpu.input_batch import InputBatch

from vllm_hpu.shapes.key import GraphKey

if TYPE_CHECKING:
    from vllm_hpu.runner.model_runner import HpuModelRunner


def blank_batch(runner: HpuModelRunner, key: GraphKey) -> InputBatch:
    """An input batch of ``key.tokens`` padding tokens over the runner's persistent buffers.

    Where the forward fills the buffers they are left as they are: clearing them would launch.
    """
    rows, tokens = runner.max_num_reqs, key.tokens
    buffers = runner.input_buffers
    if runner.step_inputs is None:
        buffers.query_start_loc[: rows + 1].zero_()
        buffers.seq_lens[:rows].zero_()
        buffers.input_ids[:tokens].zero_()
        buffers.positions[:tokens].zero_()
        buffers.is_padding[:tokens].fill_(True)
    no_tokens = np.zeros(rows, dtype=np.int32)
    row_ids = torch.zeros(rows, dtype=torch.int64).to(runner.device)
    return InputBatch(
        req_ids=[],
        num_reqs=rows,
        num_reqs_after_padding=rows,
        idx_mapping=row_ids,
        idx_mapping_np=np.zeros(rows, dtype=np.intp),
        expanded_idx_mapping=row_ids,
        expanded_local_pos=torch.from_numpy(no_tokens).to(runner.device),
        num_scheduled_tokens=no_tokens,
        num_tokens=tokens,
        num_tokens_after_padding=tokens,
        num_draft_tokens=0,
        num_draft_tokens_per_req=None,
        query_start_loc=buffers.query_start_loc[: rows + 1],
        query_start_loc_np=np.zeros(rows + 1, dtype=np.int32),
        seq_lens=buffers.seq_lens[:rows],
        seq_lens_cpu_upper_bound=torch.from_numpy(no_tokens.copy()),
        dcp_local_seq_lens=None,
        num_computed_tokens_np=no_tokens,
        prefill_len_np=no_tokens,
        num_computed_prefill_tokens_np=no_tokens,
        is_prefilling_np=np.zeros(rows, dtype=np.bool_),
        has_prefill=False,
        decode_graph_eligible=True,
        input_ids=buffers.input_ids[:tokens],
        positions=buffers.positions[:tokens],
        is_padding=buffers.is_padding[:tokens],
        logits_indices=row_ids,
        cu_num_logits=buffers.query_start_loc[: rows + 1],
        cu_num_logits_np=np.zeros(rows + 1, dtype=np.int32),
        has_structured_output_reqs=False,
        prompt_lens=None,
    )


def prepare_blank_step(runner: HpuModelRunner, key: GraphKey) -> None:
    """Bring the persistent buffers and the step's metadata into the shape of ``key``."""
    runner.step_forward.key = key
    batch = blank_batch(runner, key)
    if runner.step_inputs is not None:
        runner.step_inputs.stage_nothing()
        tables, slots = runner.prepare_attn(batch)
    else:
        tables = runner.block_tables.get_dummy_block_tables(runner.max_num_reqs)
        slots = runner.block_tables.get_dummy_slot_mappings(key.tokens)
    runner.model_state.prepare_attn(
        batch,
        CUDAGraphMode.FULL,
        tables,
        slots,
        runner.attn_groups,
        runner.kv_cache_config,
        for_capture=True,
    )
