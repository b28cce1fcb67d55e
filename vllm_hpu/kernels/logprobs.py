"""Log-probabilities and ranks of chosen tokens.

Replaces the kernels of `vllm.v1.worker.gpu.sample.logprob` and `.prompt_logprob`. `N` is the
number of logits rows, `V` the vocabulary. Parameters in capitals are launch options of Triton.
"""

import torch

from vllm_hpu.kernels.rows import lookup, rows_of, take, with_pad


def topk_log_softmax(
    output: torch.Tensor,
    logits: torch.Tensor,
    logits_stride: int,
    topk_ids: torch.Tensor,
    topk_ids_stride: int,
    topk: int,
    vocab_size: int,
    BLOCK_SIZE: int,
    TOPK_BLOCK_SIZE: int,
) -> None:
    """Log-softmax at the given tokens only. Replaces `logprob._topk_log_softmax_kernel`.

    output: [N, topk] float32, written; logits: [N, V] floating point; topk_ids: [N, topk] int64.
    """
    scores = logits.float()
    norm = torch.logsumexp(scores, dim=-1, keepdim=True)
    torch.sub(scores.gather(1, topk_ids), norm, out=output)


def ranks(
    output: torch.Tensor,
    logits: torch.Tensor,
    logits_stride: int,
    token_ids: torch.Tensor,
    vocab_size: int,
    BLOCK_SIZE: int,
) -> None:
    """Rank of a token: how many tokens score at least as high. Replaces `logprob._ranks_kernel`.

    output: [N] int64, written; logits: [N, V]; token_ids: [N] int64.
    """
    score = logits.gather(1, token_ids[:, None])
    torch.sum(logits >= score, dim=-1, out=output)


def fill_logprob_token_ids(
    out_token_ids: torch.Tensor,
    out_token_ids_stride: int,
    out_valid_mask: torch.Tensor,
    out_valid_mask_stride: int,
    sampled_token_ids: torch.Tensor,
    topk_indices: torch.Tensor,
    topk_indices_stride: int,
    expanded_idx_mapping: torch.Tensor,
    num_per_req_token_ids: torch.Tensor,
    per_req_token_ids: torch.Tensor,
    per_req_token_ids_stride: int,
    NUM_TOPK: int,
    PADDED_COLS: int,
) -> None:
    """Tokens to report per row: the sampled one, then the request's own list or the top k.

    Replaces `logprob._fill_logprob_token_ids_kernel`.
    out_token_ids: [N, 1 + columns] int64 and out_valid_mask: [N, 1 + columns] bool, zero on entry,
    written; sampled_token_ids: [N] int64; topk_indices: [N, NUM_TOPK] int32, any tensor if
    NUM_TOPK is 0; expanded_idx_mapping: [N]; num_per_req_token_ids: [S] int32;
    per_req_token_ids: [S, listed] int32.
    """
    out_token_ids[:, 0] = sampled_token_ids
    out_valid_mask[:, 0] = True
    count = take(num_per_req_token_ids, expanded_idx_mapping)[:, None]
    if NUM_TOPK:
        by_score = count == 0
        out_token_ids[:, 1 : 1 + NUM_TOPK] = topk_indices.masked_fill(~by_score, 0)
        out_valid_mask[:, 1 : 1 + NUM_TOPK] = by_score
    # A list is never longer than the output has columns, but its state row may be.
    width = min(per_req_token_ids.shape[1], out_token_ids.shape[1] - 1)
    column = torch.arange(width, dtype=count.dtype, device=count.device)
    listed = column < count
    tokens = take(per_req_token_ids[:, :width], expanded_idx_mapping)
    for out, new in ((out_token_ids, tokens), (out_valid_mask, listed)):
        part = out[:, 1 : 1 + width]
        part.copy_(torch.where(listed, new.to(part.dtype), part))


def prompt_logprobs_token_ids(
    prompt_logprobs_token_ids: torch.Tensor,
    query_start_loc: torch.Tensor,
    idx_mapping: torch.Tensor,
    num_computed_tokens: torch.Tensor,
    all_token_ids: torch.Tensor,
    all_token_ids_stride: int,
    BLOCK_SIZE: int,
) -> None:
    """The token that follows each token of the step, whose log-probability is asked for.

    Replaces `prompt_logprob._prompt_logprobs_token_ids_kernel`.
    prompt_logprobs_token_ids: [T] int64, written; query_start_loc: [>= R + 1] int32;
    idx_mapping: [R]; num_computed_tokens: [S] int32; all_token_ids: [S, L] int32.
    """
    num_rows, num_tokens = idx_mapping.shape[0], prompt_logprobs_token_ids.shape[0]
    row = rows_of(query_start_loc, num_rows, num_tokens)
    state = take(with_pad(idx_mapping, 0), row)
    following = take(num_computed_tokens, idx_mapping) - query_start_loc[:num_rows] + 1
    token = torch.arange(num_tokens, dtype=following.dtype, device=following.device)
    position = take(with_pad(following, 0), row) + token
    prompt_logprobs_token_ids.copy_(lookup(all_token_ids, state, position))
