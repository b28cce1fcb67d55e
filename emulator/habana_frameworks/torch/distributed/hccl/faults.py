"""What does an armed fault do to the result of a collective?"""

from collections.abc import Sequence

import torch

from .transport import Pending

__all__ = ["spoilt"]


def _corrupt(tensor: torch.Tensor) -> None:
    """Other numbers of the same shape, whatever the dtype."""
    if tensor.dtype is torch.bool:
        tensor.logical_not_()
    elif tensor.is_floating_point() and tensor.itemsize > 1:
        tensor.mul_(-1).sub_(1)
    else:
        tensor.view(torch.uint8).bitwise_xor_(1)


def spoilt(pending: Pending, written: Sequence[torch.Tensor], fault: str) -> Pending:
    """The transfers with a result that is "nan" or "wrong"; unchanged for "", any other fault."""
    if fault not in ("nan", "wrong"):
        return pending
    finish = pending.finish

    def spoil() -> None:
        if finish is not None:
            finish()
        for tensor in written:
            if fault == "wrong":
                _corrupt(tensor)
            elif tensor.is_floating_point():
                tensor.fill_(float("nan"))

    return pending._replace(finish=spoil)
