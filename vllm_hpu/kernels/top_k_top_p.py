"""Top-k and top-p: which tokens of a row may be drawn.

Replaces `vllm.v1.sample.ops.topk_topp_sampler.apply_top_k_top_p`, whose form for PyTorch compares
with the k-th largest logit, so that all its equals come in, and cuts ties at the border of top-p in
the order in which a sort happens to leave them. Equal logits are no rarity: half-precision output
matrices, merged and padded vocabularies have them. Here a row keeps as many tokens as the
parameters say, and of equals those with the lowest ids, as argmax does.
"""

import torch


def apply_top_k_top_p(
    logits: torch.Tensor, k: torch.Tensor | None, p: torch.Tensor | None
) -> torch.Tensor:
    """`logits` [N, V] with minus infinity in the place of tokens that may not be drawn.

    k: [N] integers, 1 ≤ k ≤ V, the number of tokens to keep; None keeps all. p: [N] float32,
    0 < p ≤ 1: of those, the fewest most likely ones that hold at least this part of their
    probability, and one at least; None keeps all.
    """
    if k is None and p is None:
        return logits
    vocabulary = logits.shape[1]
    ascending = logits.sort(dim=-1).values
    kept = None if k is None else k.to(torch.int64)
    if p is not None:
        likely = ascending
        if kept is not None:
            place = torch.arange(vocabulary, device=logits.device)
            likely = likely.masked_fill(place < (vocabulary - kept)[:, None], float("-inf"))
        # Summed from the least likely one, which keeps the small ones exact.
        tail = likely.softmax(dim=-1).cumsum(dim=-1)
        kept = vocabulary - (tail <= 1 - p[:, None]).sum(dim=-1)
    assert kept is not None
    kept = kept.clamp(1, vocabulary)
    least = ascending.gather(1, (vocabulary - kept)[:, None])
    above, equal = logits > least, logits == least
    ties = (kept - above.sum(dim=-1))[:, None]
    return logits.masked_fill(~(above | (equal & (equal.cumsum(dim=-1) <= ties))), float("-inf"))
