"""NaN count of the logits. Replaces the kernel of `vllm.v1.worker.gpu.metrics.logits`."""

import torch


def num_nans(
    logits: torch.Tensor,
    logits_stride: int,
    counts: torch.Tensor,
    vocab_size: int,
    BLOCK_SIZE: int,
) -> None:
    """Count NaNs per row. Replaces `logits._num_nans_kernel`.

    logits: [N, V]; counts: [N] int32, written.
    """
    counts.copy_(logits.isnan().sum(dim=-1))
