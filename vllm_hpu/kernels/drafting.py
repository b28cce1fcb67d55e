"""Inputs of the draft model of speculative decoding.

Replaces the kernels of `vllm.v1.worker.gpu.spec_decode.target_dependent_ar` (EAGLE and other
heads that read the target's hidden states) and `.standalone_ar` (a draft model of its own). `R` is
the number of rows, `M` the most rows there can be, `T` the number of target tokens, `S` the number
of request-state rows. Parameters in capitals are launch options of Triton unless said otherwise.
"""

import torch

from vllm_hpu.kernels.rows import lengths_of, rows_of, take, with_pad


def prepare_prefill_inputs(
    last_token_indices: torch.Tensor,
    draft_current_step: torch.Tensor,
    draft_input_ids: torch.Tensor,
    draft_positions: torch.Tensor,
    draft_query_start_loc: torch.Tensor,
    draft_seq_lens: torch.Tensor,
    target_input_ids: torch.Tensor,
    target_positions: torch.Tensor,
    idx_mapping: torch.Tensor,
    last_sampled: torch.Tensor,
    next_prefill_tokens: torch.Tensor,
    num_sampled: torch.Tensor,
    num_rejected: torch.Tensor,
    query_start_loc: torch.Tensor,
    seq_lens: torch.Tensor,
    max_num_reqs: int,
    BLOCK_SIZE: int,
) -> None:
    """First draft step: the target's tokens one place to the left, then the newest token.

    Replaces `target_dependent_ar.speculator._prepare_prefill_inputs_kernel`. Rejected tokens at
    the end of a row are left out; their places keep what was there.
    Written: last_token_indices [M] int64, draft_current_step [] int64, draft_input_ids [>= T]
    int32, draft_positions [>= T] int64, draft_query_start_loc [M + 1] int32, draft_seq_lens [M]
    int32. Read: target_input_ids [T] int32, target_positions [T] int64, idx_mapping [R],
    last_sampled [S, 1] int64, next_prefill_tokens [S] int32, num_sampled, num_rejected [R] int32,
    query_start_loc [>= R + 1] int32, seq_lens [>= R] int32.
    """
    num_rows, num_tokens = idx_mapping.shape[0], target_input_ids.shape[0]
    starts = query_start_loc[:num_rows]
    length = lengths_of(query_start_loc, num_rows) - num_rejected
    end = starts + length
    newest = torch.where(
        num_sampled > 0,
        take(last_sampled.view(-1), idx_mapping).to(torch.int32),
        take(next_prefill_tokens.view(-1), idx_mapping),
    )

    row = rows_of(query_start_loc, num_rows, num_tokens)
    token = torch.arange(num_tokens, dtype=end.dtype, device=end.device)
    # Tokens of no row end before they begin.
    end_of = take(with_pad(end, 0), row)
    shifted = torch.cat([target_input_ids[1:], target_input_ids[-1:]])
    new = torch.where(token + 1 == end_of, take(with_pad(newest, 0), row), shifted)
    kept = token < end_of
    ids, positions = draft_input_ids[:num_tokens], draft_positions[:num_tokens]
    ids.copy_(torch.where(kept, new, ids))
    positions.copy_(torch.where(kept, target_positions, positions))

    last_token_indices[:num_rows] = (end - 1).clamp_(min=0)
    last_token_indices[num_rows:].zero_()
    draft_query_start_loc[:num_rows] = starts
    draft_query_start_loc[num_rows:] = query_start_loc[num_rows]
    draft_seq_lens[:num_rows] = seq_lens[:num_rows]
    draft_seq_lens[num_rows:].zero_()
    draft_current_step.zero_()


def prepare_decode_inputs(
    draft_tokens: torch.Tensor,
    draft_tokens_stride: int,
    target_seq_lens: torch.Tensor,
    num_rejected: torch.Tensor,
    input_ids: torch.Tensor,
    positions: torch.Tensor,
    sample_src_positions: torch.Tensor,
    query_start_loc: torch.Tensor,
    seq_lens: torch.Tensor,
    max_model_len: int,
    max_num_reqs: int,
    BLOCK_SIZE: int,
    ADVANCE_DRAFT_POSITIONS: bool,
) -> None:
    """Second draft step: one token per row.

    Replaces `target_dependent_ar.speculator._prepare_decode_inputs_kernel`.
    draft_tokens: [R] int64. Written: input_ids [>= R] int32, query_start_loc [M + 1] and seq_lens
    [M] int32. Advanced: sample_src_positions [>= R] int64 and, with ADVANCE_DRAFT_POSITIONS (not
    a launch option), positions [>= R] int64. target_seq_lens [>= R], num_rejected [R] int32.
    """
    num_rows = draft_tokens.shape[0]
    input_ids[:num_rows] = draft_tokens
    sample_src_positions[:num_rows] += 1
    rows = torch.arange(
        query_start_loc.shape[0], dtype=query_start_loc.dtype, device=query_start_loc.device
    )
    query_start_loc.copy_(rows.clamp_(max=num_rows))
    length = target_seq_lens[:num_rows] - num_rejected
    if ADVANCE_DRAFT_POSITIONS:
        # At the end of the context the step repeats its last place; its result is thrown away.
        positions[:num_rows].add_(1).clamp_(max=max_model_len - 1)
        length = (length + 1).clamp_(max=max_model_len)
    seq_lens[:num_rows] = length
    seq_lens[num_rows:].zero_()


def update_draft_inputs(
    output_draft_tokens: torch.Tensor,
    output_draft_tokens_stride: int,
    next_input_hidden_states: torch.Tensor,
    next_input_hidden_states_stride: int,
    input_ids: torch.Tensor,
    positions: torch.Tensor,
    sample_src_positions: torch.Tensor,
    seq_lens: torch.Tensor,
    draft_tokens: torch.Tensor,
    current_draft_step: torch.Tensor,
    hidden_states: torch.Tensor,
    hidden_states_stride: int,
    hidden_size: int,
    max_model_len: int,
    num_speculative_steps: int,
    BLOCK_SIZE: int,
    ADVANCE_DRAFT_POSITIONS: bool,
) -> None:
    """After a draft step: keep its tokens and make the next step's inputs, if there is one.

    Replaces `target_dependent_ar.speculator._update_draft_inputs_kernel`. The step number lives on
    the device, so one graph serves all steps.
    output_draft_tokens: [M, K] int64, written in column current_draft_step [] int64; draft_tokens:
    [R] int64; hidden_states: [>= R, hidden_size]. Updated unless the step is the last:
    next_input_hidden_states [>= R, hidden_size], input_ids [>= R] int32, sample_src_positions
    [>= R] int64 and, with ADVANCE_DRAFT_POSITIONS, positions [>= R] int64, seq_lens [>= R] int32.
    """
    num_rows = draft_tokens.shape[0]
    step = current_draft_step.view(1, 1)
    output_draft_tokens[:num_rows].scatter_(
        1, step.long().expand(num_rows, 1), draft_tokens[:, None].to(output_draft_tokens.dtype)
    )
    goes_on = (step < num_speculative_steps - 1)[0]
    sample_src_positions[:num_rows] += goes_on
    ids = input_ids[:num_rows]
    ids.copy_(torch.where(goes_on, draft_tokens.to(ids.dtype), ids))
    following = next_input_hidden_states[:num_rows, :hidden_size]
    current = hidden_states[:num_rows].to(following.dtype)
    following.copy_(torch.where(goes_on, current, following))
    if ADVANCE_DRAFT_POSITIONS:
        positions[:num_rows].add_(goes_on).clamp_(max=max_model_len - 1)
        seq_lens[:num_rows].add_(goes_on).clamp_(max=max_model_len)


def prepare_standalone_prefill_inputs(
    target_input_ids: torch.Tensor,
    target_positions: torch.Tensor,
    last_sampled: torch.Tensor,
    idx_mapping: torch.Tensor,
    out_input_ids: torch.Tensor,
    out_positions: torch.Tensor,
    last_token_indices: torch.Tensor,
    out_query_start_loc: torch.Tensor,
    out_seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    seq_lens: torch.Tensor,
    num_rejected: torch.Tensor,
    max_num_reqs: int,
    max_model_len: int,
    BLOCK_SIZE: int,
) -> None:
    """First step of a draft model of its own: each row's accepted tokens, then the newest token.

    Replaces `standalone_ar.speculator._prepare_prefill_inputs_kernel`. Every row has one token
    more than in the target: accepted tokens, the newest one, zeros for the rejected.
    Written: out_input_ids [>= T + R] int32, out_positions [>= T + R] int64, last_token_indices [M]
    int64, out_query_start_loc [M + 1] int32, out_seq_lens [M] int32. Read: target_input_ids [T]
    int32, target_positions [T] int64, last_sampled [S, 1] int32, idx_mapping [R], query_start_loc
    [>= R + 1] int32, seq_lens [>= R] int32, num_rejected [R] int32.
    """
    num_rows, num_tokens = idx_mapping.shape[0], target_input_ids.shape[0]
    starts = query_start_loc[: num_rows + 1]
    out_starts = starts + torch.arange(num_rows + 1, dtype=starts.dtype, device=starts.device)
    accepted = lengths_of(query_start_loc, num_rows) - num_rejected
    newest = take(last_sampled.view(-1), idx_mapping).to(out_input_ids.dtype)
    first_position = take(target_positions, starts[:num_rows].clamp(max=num_tokens - 1))

    size = min(num_tokens + num_rows, out_input_ids.shape[0])
    row = rows_of(out_starts, num_rows, size)
    inside = row < num_rows
    row = row.clamp_(max=num_rows - 1)
    item = torch.arange(size, dtype=starts.dtype, device=starts.device)
    place = item - take(out_starts, row)
    limit = take(accepted, row)
    source = (item - row).clamp_(0, num_tokens - 1)  # one extra token per row before this one
    ids = take(target_input_ids, source).masked_fill_(place > limit, 0)
    ids = torch.where(place == limit, take(newest, row), ids)
    positions = (take(first_position, row) + place).clamp_(max=max_model_len - 1)
    for out, new in ((out_input_ids, ids), (out_positions, positions)):
        out[:size] = torch.where(inside, new, out[:size])

    last_token_indices[:num_rows] = out_starts[:num_rows] + accepted
    last_token_indices[num_rows:].zero_()
    out_query_start_loc[: num_rows + 1] = out_starts
    out_query_start_loc[num_rows + 1 :] = out_starts[num_rows]
    out_seq_lens[:num_rows] = (seq_lens[:num_rows] + 1).clamp_(max=max_model_len)
    out_seq_lens[num_rows:].zero_()
