"""Operators that move rows: ``plain_index``, ``kv_reorder``, ``in_place_interleave``.

Schemas: scripts/hpu_op.yaml of HabanaAI/gaudi-pytorch-bridge.
"""

import torch

from .library import lower_in_place, operator

__all__ = [
    "in_place_interleave",
    "in_place_interleave_",
    "kv_reorder",
    "kv_reorder_",
    "plain_index",
]

_BEAMS = 4


def _fake_index(self, indices):
    return torch.ops.aten.index.Tensor(self, indices)


@operator("plain_index(Tensor self, Tensor[] indices) -> Tensor", _fake_index)
def plain_index(self: torch.Tensor, indices: list[torch.Tensor]) -> torch.Tensor:
    """``self[indices]`` for integer indices of the first dimensions, which broadcast."""
    if any(not index.dtype.is_signed or index.dtype.is_floating_point for index in indices):
        raise TypeError("plain_index: indices must be signed integers")
    return torch.ops.aten.index.Tensor(self, indices)


def _fake_reorder(self, start, end, beam_idx):
    return torch.empty_like(self)


@operator(
    "kv_reorder(Tensor self, Tensor start, Tensor end, Tensor beam_idx) -> Tensor", _fake_reorder
)
def kv_reorder(
    self: torch.Tensor, start: torch.Tensor, end: torch.Tensor, beam_idx: torch.Tensor
) -> torch.Tensor:
    """A key or value cache after a step of beam search with four beams.

    Args:
        self: ``[batch, 4, heads, positions, dim]``.
        start, end: int32 ``[batch]``; positions from ``start`` to before ``end`` move.
        beam_idx: uint8 ``[batch]``: where each beam comes from, two bits per beam, the first
            beam in the highest bits.

    Returns:
        a tensor like ``self``.
    """
    if self.dim() != 5 or self.shape[1] != _BEAMS:
        raise ValueError(
            f"kv_reorder: expected [batch, 4, heads, positions, dim], got {list(self.shape)}"
        )
    batch, _, _, positions, _ = self.shape
    shifts = torch.arange(_BEAMS - 1, -1, -1, dtype=torch.int32, device=self.device) * 2
    source = (beam_idx.to(torch.int32).unsqueeze(-1) >> shifts) & 3
    entry = torch.arange(batch, dtype=torch.int32, device=self.device).unsqueeze(-1)
    moved = torch.ops.aten.index.Tensor(self, [entry, source])
    position = torch.arange(positions, dtype=torch.int32, device=self.device)
    inside = (position >= start.unsqueeze(-1)) & (position < end.unsqueeze(-1))
    return torch.where(inside[:, None, None, :, None], moved, self)


def _fake_reorder_(self, start, end, beam_idx):
    return self


@operator(
    "kv_reorder_(Tensor(a!) self, Tensor start, Tensor end, Tensor beam_idx) -> Tensor(a!)",
    _fake_reorder_,
)
def kv_reorder_(
    self: torch.Tensor, start: torch.Tensor, end: torch.Tensor, beam_idx: torch.Tensor
) -> torch.Tensor:
    """:func:`kv_reorder` in place."""
    return self.copy_(kv_reorder(self, start, end, beam_idx))


def _fake_interleave(self):
    return torch.empty_like(self)


@operator("in_place_interleave(Tensor self) -> Tensor", _fake_interleave)
def in_place_interleave(self: torch.Tensor) -> torch.Tensor:
    """The first quarter of the rows of ``self`` ``[rows, ...]``, each four times in a row.

    So a prompt's cache entries become those of its four beams. ``rows`` is a multiple of 4.
    """
    rows = self.shape[0]
    if rows % _BEAMS:
        raise ValueError(f"in_place_interleave: the rows must be a multiple of 4, got {rows}")
    return self[: rows // _BEAMS].repeat_interleave(_BEAMS, dim=0)


def _fake_interleave_(self):
    return self


@operator("in_place_interleave_(Tensor(a!) self) -> Tensor(a!)", _fake_interleave_)
def in_place_interleave_(self: torch.Tensor) -> torch.Tensor:
    """:func:`in_place_interleave` in place."""
    return self.copy_(in_place_interleave(self))


lower_in_place("kv_reorder")
lower_in_place("in_place_interleave")
