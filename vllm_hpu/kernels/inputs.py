"""Model inputs of a step: token ids, positions, sequence lengths, and the update after sampling.

Replaces the kernels of `vllm.v1.worker.gpu.input_batch`. `R` is the number of rows of the step,
`S` the number of request-state rows including the dump row, `T` the token buffer's length, `L`
the longest context. Parameters in capitals (and `num_warps`) are launch options of the Triton
kernels; they carry no meaning here and stand in the signatures because callers pass them.

Row arguments (`idx_mapping`) are [R] int32 or int64. Padding rows point at the dump row and have
no tokens.
"""

import torch

from vllm_hpu.kernels.rows import dump_row, lengths_of, lookup, rows_of, take, with_pad


def prepare_prefill_inputs(
    input_ids: torch.Tensor,
    next_prefill_tokens: torch.Tensor,
    next_prefill_tokens_stride: int,
    num_lookahead: int,
    idx_mapping: torch.Tensor,
    query_start_loc: torch.Tensor,
    all_token_ids: torch.Tensor,
    all_token_ids_stride: int,
    prefill_lens: torch.Tensor,
    num_computed_tokens: torch.Tensor,
    BLOCK_SIZE: int,
    LOOKAHEAD_BLOCK: int,
) -> None:
    """Copy this step's prompt tokens to `input_ids` and remember the prompt tokens that follow.

    Replaces `input_batch._prepare_prefill_inputs_kernel`. Only rows with
    num_computed_tokens < prefill_len are touched.
    input_ids: [T] int32, written; next_prefill_tokens: [num_lookahead, S] int32, written, 0 where
    the prompt has ended; query_start_loc: [>= R + 1] int32; all_token_ids: [S, L] int32;
    prefill_lens, num_computed_tokens: [S] int32.
    """
    num_rows = idx_mapping.shape[0]
    computed = take(num_computed_tokens, idx_mapping)
    prefill_len = take(prefill_lens, idx_mapping)
    prefilling = computed < prefill_len

    row = rows_of(query_start_loc, num_rows, input_ids.shape[0])
    # Items of no row look up state row 0 and are discarded by `wanted`.
    state = take(with_pad(idx_mapping, 0), row)
    offset = take(with_pad(computed - query_start_loc[:num_rows], 0), row)
    wanted = take(with_pad(prefilling, 0), row)
    position = offset + torch.arange(
        input_ids.shape[0], dtype=offset.dtype, device=input_ids.device
    )
    tokens = lookup(all_token_ids, state, position)
    torch.where(wanted, tokens, input_ids, out=input_ids)

    if num_lookahead == 0:
        return
    ahead = torch.arange(num_lookahead, dtype=computed.dtype, device=input_ids.device)[:, None]
    position = computed + lengths_of(query_start_loc, num_rows) + ahead
    states = idx_mapping.long()
    tokens = lookup(all_token_ids, states.expand_as(position), position)
    tokens = torch.where(position < prefill_len, tokens, 0)
    kept = next_prefill_tokens.index_select(1, states)
    next_prefill_tokens.index_copy_(1, states, torch.where(prefilling, tokens, kept))


def prepare_pos_seq_lens(
    pos: torch.Tensor,
    seq_lens: torch.Tensor,
    idx_mapping: torch.Tensor,
    query_start_loc: torch.Tensor,
    num_computed_tokens: torch.Tensor,
    max_num_reqs: int,
    BLOCK_SIZE: int,
) -> None:
    """Position of every token and sequence length of every row.

    Replaces `input_batch._prepare_pos_seq_lens_kernel`.
    pos: [T] int64, written, 0 for padding tokens (Triton's leaves what was there); seq_lens:
    [max_num_reqs] int32, written, 0 behind the rows of the step; query_start_loc: [>= R + 1]
    int32; num_computed_tokens: [S] int32.
    """
    num_rows = idx_mapping.shape[0]
    computed = take(num_computed_tokens, idx_mapping)
    torch.add(computed, lengths_of(query_start_loc, num_rows), out=seq_lens[:num_rows])
    seq_lens[num_rows:].zero_()

    row = rows_of(query_start_loc, num_rows, pos.shape[0])
    offset = take(with_pad(computed - query_start_loc[:num_rows], 0), row)
    token = torch.arange(pos.shape[0], dtype=pos.dtype, device=pos.device)
    pos.copy_(torch.where(row < num_rows, token + offset, 0))


def combine_sampled_and_draft_tokens(
    input_ids: torch.Tensor,
    idx_mapping: torch.Tensor,
    last_sampled_tokens: torch.Tensor,
    query_start_loc: torch.Tensor,
    seq_lens: torch.Tensor,
    prefill_len: torch.Tensor,
    draft_tokens: torch.Tensor,
    draft_tokens_stride: int,
    cu_num_logits: torch.Tensor,
    logits_indices: torch.Tensor,
    BLOCK_SIZE: int,
    NUM_NEW_SAMPLED_TOKENS: int = 1,
) -> None:
    """Put last step's sampled token and the draft tokens in place; list the tokens with logits.

    Replaces `input_batch._combine_sampled_and_draft_tokens_kernel`. The last tokens of a row are
    the ones with logits: first the sampled token (if NUM_NEW_SAMPLED_TOKENS is 1), then the
    drafts. Tokens of the prompt stay as they are.
    input_ids: [T] int32, written; last_sampled_tokens: [S, 1] int64; query_start_loc: [>= R + 1]
    int32; seq_lens: [>= R] int32; prefill_len: [S] int32; draft_tokens: [S, K] int64;
    cu_num_logits: [R + 1] int32; logits_indices: [N] int64, written.
    """
    num_rows = idx_mapping.shape[0]
    num_logits = logits_indices.shape[0]
    num_drafts = draft_tokens.shape[1]
    ends = query_start_loc[1 : num_rows + 1]
    # As many logits as rows means one for each row, the sampled token: no offsets to look up.
    one_per_row = NUM_NEW_SAMPLED_TOKENS == 1 and (num_drafts == 0 or num_logits == num_rows)
    if one_per_row:
        logits_indices.copy_(ends - 1)
    else:
        row = rows_of(cu_num_logits, num_rows, num_logits).clamp_(max=num_rows - 1)
        item = torch.arange(num_logits, dtype=ends.dtype, device=ends.device)
        logits_indices.copy_(item + take(ends - cu_num_logits[1 : num_rows + 1], row))

    # A padding row has no tokens, so its "last" token is that of the last real row. Computing
    # from the token's owner makes all writers of one place write the same value.
    target = logits_indices.clamp(min=0)
    owner = torch.searchsorted(ends, target.to(ends.dtype), right=True).clamp_(max=num_rows - 1)
    state = take(idx_mapping, owner)
    prompt = take(prefill_len, state)
    length = take(seq_lens, owner)
    generated = length > prompt
    token = take(last_sampled_tokens, state).view(-1)
    if one_per_row:
        # The row's only logit is its last token, so its sampled token sits at length - 1.
        write = generated
    else:
        per_row = lengths_of(cu_num_logits, num_rows)
        # Number of the token among the row's logits; the sampled token comes first.
        place = target - take(ends - per_row, owner)
        write = generated
        if NUM_NEW_SAMPLED_TOKENS == 1:
            sampled = place == 0
            write &= ~sampled | (length - take(per_row, owner) >= prompt)
        if num_drafts:
            draft = lookup(draft_tokens, state, place - NUM_NEW_SAMPLED_TOKENS)
            token = torch.where(sampled, token, draft) if NUM_NEW_SAMPLED_TOKENS else draft
    kept = take(input_ids, target)
    input_ids.index_copy_(0, target, torch.where(write, token.to(input_ids.dtype), kept))


def get_num_sampled_and_rejected(
    num_sampled: torch.Tensor,
    num_rejected: torch.Tensor,
    seq_lens: torch.Tensor,
    cu_num_logits: torch.Tensor,
    idx_mapping: torch.Tensor,
    prefill_len: torch.Tensor,
) -> None:
    """Count sampled and rejected tokens; a row in the middle of its prompt has none of either.

    Replaces `input_batch._get_num_sampled_and_rejected_kernel`. Padding rows (sequence length 0)
    count as unfinished prompts: the dump row must not seem to grow.
    num_sampled: [R] int32, updated; num_rejected: [R] int32, written; seq_lens: [>= R] int32;
    cu_num_logits: [R + 1] int32; prefill_len: [S] int32.
    """
    num_rows = idx_mapping.shape[0]
    length = seq_lens[:num_rows]
    # clamp: a prompt of at least one token, also for the dump row, whose length is 0.
    silent = length < take(prefill_len, idx_mapping).clamp_(min=1)
    rejected = lengths_of(cu_num_logits, num_rows) - num_sampled
    num_rejected.copy_(rejected.masked_fill_(silent, 0))
    num_sampled.masked_fill_(silent, 0)


def post_update(
    idx_mapping: torch.Tensor,
    num_computed_tokens: torch.Tensor,
    last_sampled_tokens: torch.Tensor,
    output_bin_counts: torch.Tensor | None,
    output_bin_counts_stride: int,
    sampled_tokens: torch.Tensor,
    sampled_tokens_stride: int,
    num_sampled: torch.Tensor,
    num_rejected: torch.Tensor,
    query_start_loc: torch.Tensor | None,
    all_token_ids: torch.Tensor,
    all_token_ids_stride: int,
    total_len: torch.Tensor,
    num_warps: int | None = None,
) -> None:
    """Append the sampled tokens to their requests and advance the computed-token counters.

    Replaces `input_batch._post_update_kernel`. idx_mapping: [R], negative entries are skipped.
    num_computed_tokens, total_len: [S] int32, updated; last_sampled_tokens: [S, 1] int64, updated;
    output_bin_counts: [S, vocabulary] int32, updated, or None; sampled_tokens: [R, C] integer,
    C = 1 + draft tokens, the first num_sampled of a row are valid; num_sampled, num_rejected: [R]
    int32; query_start_loc: [>= R + 1] int32, None means no token was computed; all_token_ids:
    [S, L] int32, updated.

    The dump row keeps length 0 and 0 computed tokens; its token row and counts hold rubbish.
    """
    num_rows, width = idx_mapping.shape[0], sampled_tokens.shape[1]
    dump = dump_row(total_len)
    skipped = (idx_mapping < 0) | (idx_mapping == dump)
    state = idx_mapping.long().masked_fill(skipped, dump)
    accepted = num_sampled.masked_fill(skipped, 0)

    place = torch.arange(width, dtype=accepted.dtype, device=accepted.device)
    column = take(total_len, state)[:, None] + place
    # A masked write goes to the dump row: two writers of one real place would race.
    valid = (place < accepted[:, None]) & (column < all_token_ids.shape[1])
    row = torch.where(valid, state[:, None], dump)
    token = sampled_tokens.masked_fill(~valid, 0)
    column = column.masked_fill_(~valid, 0)
    all_token_ids.index_put_((row, column.long()), token.to(all_token_ids.dtype))
    if output_bin_counts is not None:
        one = torch.ones((), dtype=output_bin_counts.dtype, device=output_bin_counts.device)
        output_bin_counts.index_put_((row, token.long()), one, accumulate=True)

    last = sampled_tokens
    if width > 1:
        last = sampled_tokens.gather(1, (accepted - 1).clamp_(min=0).long()[:, None])
    row = state.masked_fill(accepted == 0, dump)
    last_sampled_tokens.index_copy_(0, row, last.to(last_sampled_tokens.dtype))

    total_len.index_add_(0, state, accepted.to(total_len.dtype))
    advance = -num_rejected
    if query_start_loc is not None:
        advance += lengths_of(query_start_loc, num_rows)
    advance = advance.masked_fill_(skipped, 0).to(num_computed_tokens.dtype)
    num_computed_tokens.index_add_(0, state, advance)


def post_update_num_computed_tokens(
    idx_mapping: torch.Tensor,
    num_computed_tokens: torch.Tensor,
    query_start_loc: torch.Tensor,
) -> None:
    """Advance the computed-token counters by the tokens of this step.

    Replaces `input_batch._post_update_num_computed_tokens_kernel`.
    num_computed_tokens: [S] int32, updated; query_start_loc: [>= R + 1] int32.
    """
    advance = lengths_of(query_start_loc, idx_mapping.shape[0])
    num_computed_tokens.index_add_(0, idx_mapping.long(), advance)


def expand_idx_mapping(
    idx_mapping: torch.Tensor,
    expanded_idx_mapping: torch.Tensor,
    expanded_local_pos: torch.Tensor,
    cu_num_logits: torch.Tensor,
    BLOCK_SIZE: int,
) -> None:
    """Repeat each row's state index once per logit and number the logits of a row.

    Replaces `input_batch._expand_idx_mapping_kernel`.
    expanded_idx_mapping: [N] like idx_mapping, written; expanded_local_pos: [N] int32, written;
    cu_num_logits: [R + 1] int32.
    """
    num_rows, num_logits = idx_mapping.shape[0], expanded_idx_mapping.shape[0]
    row = rows_of(cu_num_logits, num_rows, num_logits).clamp_(max=num_rows - 1)
    item = torch.arange(num_logits, dtype=cu_num_logits.dtype, device=cu_num_logits.device)
    expanded_idx_mapping.copy_(take(idx_mapping, row))
    expanded_local_pos.copy_(item - take(cu_num_logits, row))
