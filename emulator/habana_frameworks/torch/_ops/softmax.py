"""``hpu::custom_softmax``: softmax over the last dimension.

Schema: habana_eager/eager_custom_op_register.cpp of HabanaAI/gaudi-pytorch-bridge. The flavors
choose between exact and approximate kernels of the card; here all are exact.
"""

import torch

from .library import operator

__all__ = ["custom_softmax"]


def _fake(input: torch.Tensor, flavor: int) -> torch.Tensor:
    return torch.empty_like(input)


@operator("custom_softmax(Tensor input, int flavor) -> Tensor", _fake)
def custom_softmax(input: torch.Tensor, flavor: int) -> torch.Tensor:
    """Softmax of ``input`` (any shape, floating) over its last dimension, same dtype."""
    return torch.softmax(input, dim=-1)
