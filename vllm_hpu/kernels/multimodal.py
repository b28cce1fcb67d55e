"""Positions with several dimensions, and prompts given as embeddings."""

import torch
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.model_states.prompt_embeds import PromptEmbedsState

from vllm_hpu.kernels.rows import lookup, rows_of, take, with_pad


def prepare_rope_positions(
    positions: torch.Tensor,
    positions_stride: int,
    prefill_positions: torch.Tensor,
    prefill_positions_stride0: int,
    prefill_positions_stride1: int,
    prefill_delta: torch.Tensor,
    idx_mapping: torch.Tensor,
    query_start_loc: torch.Tensor,
    prefill_lens: torch.Tensor,
    num_computed_tokens: torch.Tensor,
    BLOCK_SIZE: int,
    NUM_DIMS: int,
) -> None:
    """Positions of every token in each of NUM_DIMS dimensions (M-RoPE).

    Replaces `mm.rope._prepare_rope_positions_kernel`. A prompt token's positions were computed
    with the request; later tokens count on from a request-specific offset.
    positions: [NUM_DIMS, T] int64, written, unchanged for padding tokens; prefill_positions:
    [S * NUM_DIMS, L] int32; prefill_delta, prefill_lens, num_computed_tokens: [S] int32;
    idx_mapping: [R]; query_start_loc: [>= R + 1] int32.
    """
    num_rows, num_tokens = idx_mapping.shape[0], positions.shape[1]
    row = rows_of(query_start_loc, num_rows, num_tokens)
    computed = take(num_computed_tokens, idx_mapping)
    in_prompt = take(with_pad(computed < take(prefill_lens, idx_mapping), 0), row)
    offset = take(with_pad(computed - query_start_loc[:num_rows], 0), row)
    token = torch.arange(num_tokens, dtype=offset.dtype, device=offset.device)
    plain = token + offset
    after_prompt = plain + take(with_pad(take(prefill_delta, idx_mapping), 0), row)
    state = take(with_pad(idx_mapping, 0), row) * NUM_DIMS
    inside = row < num_rows
    for dim in range(NUM_DIMS):
        prompt = lookup(prefill_positions, state + dim, plain)
        new = torch.where(in_prompt, prompt, after_prompt).to(positions.dtype)
        positions[dim] = torch.where(inside, new, positions[dim])


def apply_prompt_embeds(
    self: PromptEmbedsState,
    input_batch: InputBatch,
    num_computed_tokens: torch.Tensor,
    inputs_embeds: torch.Tensor,
) -> None:
    """Put prompts that came as embeddings in place of the looked-up ones.

    Replaces `PromptEmbedsState.apply`, whose kernel follows raw pointers. Requests with
    embeddings are few and the host knows where their tokens are: one copy for each.
    inputs_embeds: [T, hidden] written.
    """
    for row, req_id in enumerate(input_batch.req_ids):
        embeds, is_token_id = self.gpu_tensors.get(req_id, (None, None))
        if embeds is None:
            continue
        # In the prompt nothing is speculative, so the host's count is exact.
        done = int(input_batch.num_computed_tokens_np[row])
        count = min(int(input_batch.num_scheduled_tokens[row]), embeds.shape[0] - done)
        if count <= 0:
            continue
        first = int(input_batch.query_start_loc_np[row])
        target = inputs_embeds[first : first + count]
        new = embeds[done : done + count]
        if is_token_id is not None:
            keep = is_token_id[done : done + count, None].bool()
            new = torch.where(keep, target, new)
        target.copy_(new)
