"""Sets of tokens packed 32 to an int32 word, token t being bit t % 32 of word t // 32."""

import torch


def unpack(words: torch.Tensor, size: int) -> torch.Tensor:
    """[N, W] int32 -> [N, size] bool, size <= 32 * W."""
    shifts = torch.arange(32, dtype=words.dtype, device=words.device)
    bits = (words[:, :, None] >> shifts).bitwise_and_(1)
    return bits.flatten(1)[:, :size].bool()


def pack(members: torch.Tensor) -> torch.Tensor:
    """[N, 32 * W] integers 0 or 1 -> [N, W] int32."""
    shifts = torch.arange(32, dtype=torch.int32, device=members.device)
    words = members.view(members.shape[0], -1, 32).to(torch.int32) << shifts
    # Each bit occurs once, so the sum is their union; the sign bit makes it negative, not wrong.
    return words.sum(dim=-1, dtype=torch.int32)
