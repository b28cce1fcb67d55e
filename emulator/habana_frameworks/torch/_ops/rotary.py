"""``hpu::rotary_pos_embedding``: rotary position embedding.

Schema: habana_eager/eager_custom_op_register.cpp of HabanaAI/gaudi-pytorch-bridge. Note the order:
``sin`` stands before ``cos``. Modes: 0 blockwise (the halves of the last dimension rotate
together, GPT-NeoX style), 1 pairwise (neighbours rotate together, GPT-J style). The kernel is
csrc/bridge/rotary.cpp; it rounds each product to the type of the input, and then their sum.
"""

import torch

from .library import operator

__all__ = ["BLOCKWISE", "PAIRWISE", "rotary_pos_embedding", "rotary_pos_embedding_backward"]

BLOCKWISE = 0
PAIRWISE = 1


def _rows(table: torch.Tensor, position_ids: torch.Tensor | None, rank: int) -> torch.Tensor:
    """The rows of a sine or cosine table that belong to the tokens, ready to broadcast."""
    if position_ids is None:
        return table
    # A table of the older layout is [1, 1, positions, dim]; only its last two axes carry data.
    flat = table.reshape(-1, table.shape[-1])
    rows = flat.index_select(0, position_ids.reshape(-1)).reshape(*position_ids.shape, -1)
    # [batch, seq, dim] against [batch, heads, seq, dim]: the heads axis is inserted.
    return rows.unsqueeze(1) if rows.dim() == rank - 1 else rows


def _fake(input, sin, cos, position_ids, offset, mode):
    return torch.empty_like(input, memory_format=torch.contiguous_format)


@operator(
    "rotary_pos_embedding(Tensor input, Tensor sin, Tensor cos, Tensor? position_ids, int offset,"
    " int mode) -> Tensor",
    _fake,
)
def rotary_pos_embedding(
    input: torch.Tensor,
    sin: torch.Tensor,
    cos: torch.Tensor,
    position_ids: torch.Tensor | None,
    offset: int,
    mode: int,
) -> torch.Tensor:
    """Rotate the last dimension of ``input`` by the angles in ``sin`` and ``cos``.

    Args:
        input: ``[..., dim]``, ``dim`` even.
        sin, cos: broadcastable to ``input`` when ``position_ids`` is None; otherwise tables whose
            rows ``[positions, dim]`` are gathered by ``position_ids``. In pairwise mode every
            angle stands twice, next to itself.
        position_ids: int32 or int64, ``[batch, seq]``.
        offset: blockwise without ``position_ids`` only: start of the slice of the tables'
            last axis, as Intel's documentation of ``apply_rotary_pos_emb`` defines it.
        mode: 0 blockwise, 1 pairwise.
    """
    sin, cos = _angles(input, sin, cos, position_ids, offset, mode)
    return torch.ops.gaudi_kernel.rotary(input, sin, cos, mode == PAIRWISE)


def _angles(input, sin, cos, position_ids, offset, mode):
    """Sine and cosine that broadcast to ``input``."""
    if mode not in (BLOCKWISE, PAIRWISE):
        raise ValueError(f"rotary_pos_embedding: mode {mode} is unknown; use 0 (blockwise) or 1")
    dim = input.shape[-1]
    if dim % 2:
        raise ValueError(f"rotary_pos_embedding: the last dimension must be even, got {dim}")
    sin = _rows(sin, position_ids, input.dim())
    cos = _rows(cos, position_ids, input.dim())
    if mode == BLOCKWISE and offset and position_ids is None:
        sin = sin[..., offset : input.shape[0] + offset]
        cos = cos[..., offset : input.shape[0] + offset]
    return sin, cos


@operator(
    "rotary_pos_embedding_backward(Tensor grad_in, Tensor sin, Tensor cos, Tensor? position_ids,"
    " int offset, int mode) -> Tensor",
    _fake,
)
def rotary_pos_embedding_backward(
    grad_in: torch.Tensor,
    sin: torch.Tensor,
    cos: torch.Tensor,
    position_ids: torch.Tensor | None,
    offset: int,
    mode: int,
) -> torch.Tensor:
    """Gradient of :func:`rotary_pos_embedding` with respect to ``input``; its other arguments.

    The forward pass is ``x * cos + rot(x) * sin`` where ``rot`` swaps two halves (or neighbours)
    and negates the second; the transpose of ``rot`` negates the first.
    """
    sin, cos = _angles(grad_in, sin, cos, position_ids, offset, mode)
    grad = grad_in.to(torch.float32)
    turned = grad * sin
    if mode == BLOCKWISE:
        first, second = turned.chunk(2, dim=-1)
        back = torch.cat((second, -first), dim=-1)
    else:
        back = torch.stack((turned[..., 1::2], -turned[..., 0::2]), dim=-1).flatten(-2)
    return (grad * cos + back).to(grad_in.dtype)
