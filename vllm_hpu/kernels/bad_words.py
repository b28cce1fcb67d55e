"""Bad words: token sequences whose last token is masked once the others have been generated.

Replaces the kernel of `vllm.v1.worker.gpu.sample.bad_words`.
"""

import torch

from vllm_hpu.kernels.rows import lookup, take


def bad_words(
    logits: torch.Tensor,
    logits_stride: int,
    expanded_idx_mapping: torch.Tensor,
    bad_word_token_ids: torch.Tensor,
    bad_word_token_ids_stride: int,
    bad_word_offsets: torch.Tensor,
    bad_word_offsets_stride: int,
    num_bad_words: torch.Tensor,
    all_token_ids: torch.Tensor,
    all_token_ids_stride: int,
    prompt_len: torch.Tensor,
    total_len: torch.Tensor,
    input_ids: torch.Tensor,
    expanded_local_pos: torch.Tensor,
) -> None:
    """Mask the last token of every bad word that the output, with drafts, is about to complete.

    Replaces `bad_words._bad_words_kernel`. All words of all rows at once: J token places per
    row, W words. logits: [N, V], updated; expanded_idx_mapping: [N]; bad_word_token_ids: [S, J]
    int32, the words one after the other; bad_word_offsets: [S, W + 1] int32, where they start;
    num_bad_words, prompt_len, total_len: [S] int32; all_token_ids: [S, L] int32; input_ids: [N]
    the input token of each logits row; expanded_local_pos: [N] int32.
    """
    idx = expanded_idx_mapping.long()
    tokens = take(bad_word_token_ids, idx)
    num_rows, num_places = tokens.shape
    count = take(num_bad_words, idx)[:, None]
    starts = take(bad_word_offsets, idx)
    word = torch.arange(starts.shape[1], dtype=starts.dtype, device=starts.device)
    # Behind the last word stand leftovers of earlier requests; searchsorted needs order.
    starts = starts.masked_fill(word > count, num_places)
    place = torch.arange(num_places, dtype=starts.dtype, device=starts.device)
    place = place.expand(num_rows, num_places).contiguous()
    begins, ends = starts[:, :-1].contiguous(), starts[:, 1:].contiguous()
    word_of = torch.searchsorted(ends, place, right=True).clamp_(max=ends.shape[1] - 1)

    local = expanded_local_pos[:, None]
    length = take(total_len, idx)[:, None] + local
    # A word's last token would stand at position `length`: its other tokens come just before.
    position = length + 1 + place - ends.gather(1, word_of)
    actual = effective_tokens(
        all_token_ids, idx, take(total_len, idx), input_ids, local[:, 0], position
    )
    is_last = place == ends.gather(1, word_of) - 1
    differs = ((tokens != actual) & ~is_last).to(torch.int32)
    # Mismatches up to each place, with a leading zero, give those of a word by subtraction.
    running = torch.nn.functional.pad(differs.cumsum(dim=1, dtype=torch.int32), (1, 0))
    at_start = running.gather(1, begins.long().clamp_(max=num_places))
    mismatches = running.gather(1, ends.long().clamp_(max=num_places)) - at_start
    generated = length - take(prompt_len, idx)[:, None]
    matched = (mismatches == 0) & (word[:-1] < count) & (ends - begins - 1 <= generated)
    last = tokens.gather(1, (ends.long() - 1).clamp_(0, num_places - 1)).long()
    # Added, not stored: of two words with the same last token one may match, the other not.
    mask = torch.zeros_like(last, dtype=logits.dtype).masked_fill_(matched, float("-inf"))
    logits.scatter_add_(1, last.clamp_(0, logits.shape[1] - 1), mask)


def effective_tokens(
    all_token_ids: torch.Tensor,
    states: torch.Tensor,
    total_len: torch.Tensor,
    input_ids: torch.Tensor,
    local_pos: torch.Tensor,
    position: torch.Tensor,
) -> torch.Tensor:
    """Tokens at `position` [N, P] of each logits row's request, drafts included; int32.

    Committed tokens are in all_token_ids [S, L]; from total_len [N] on they are the drafts, which
    are the input tokens of the rows behind the request's first. states, local_pos: [N] state row
    and number of the logits row within its request; input_ids: [N]. Positions outside of the
    request give an arbitrary token.
    """
    committed = lookup(all_token_ids, states[:, None].expand_as(position), position)
    row = torch.arange(states.shape[0], device=states.device) - local_pos
    draft_row = row[:, None] + (position - total_len[:, None]) + 1
    drafts = input_ids[draft_row.clamp_(0, input_ids.shape[0] - 1).long()]
    return torch.where(position < total_len[:, None], committed, drafts.to(committed.dtype))
