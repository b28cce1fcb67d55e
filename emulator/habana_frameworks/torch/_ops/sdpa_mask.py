"""Which query may see which key: one additive mask from every rule of fused attention."""

import torch

__all__ = ["MaskRules", "additive_mask"]

from typing import NamedTuple


class MaskRules(NamedTuple):
    """The rules of one attention call.

    Attributes:
        causal: query ``i`` sees keys ``0..i`` (positions counted from the first query and key).
        window: ``(left, right)``: query ``i`` sees keys ``i-left..i+right``; -1 is unbounded.
        valid_seq_len: int tensor ``[batch]``, tokens per sequence that are not padding, or None.
        padding_left: padding stands before the valid tokens instead of behind them.
    """

    causal: bool
    window: tuple[int, int]
    valid_seq_len: torch.Tensor | None
    padding_left: bool

    @property
    def bounded(self) -> bool:
        """Whether a window limits the view to one side at least."""
        return self.window[0] >= 0 or self.window[1] >= 0

    @property
    def only_causal(self) -> bool:
        """Whether causality is all there is, so that a kernel's own causal mode will do."""
        return not self.bounded and self.valid_seq_len is None


def _visible(
    rules: MaskRules, rows: torch.Tensor, keys: torch.Tensor, key_count: int
) -> torch.Tensor | None:
    """Boolean ``[queries, keys]`` or ``[batch, 1, queries, keys]``; None when all is visible."""
    visible = None

    def allow(condition: torch.Tensor) -> None:
        nonlocal visible
        visible = condition if visible is None else visible & condition

    left, right = rules.window
    if rules.causal:
        allow(keys <= rows)
    if left >= 0:
        allow(keys >= rows - left)
    if right >= 0:
        allow(keys <= rows + right)
    if rules.valid_seq_len is not None:
        valid = rules.valid_seq_len.reshape(-1, 1, 1, 1)
        if rules.padding_left:
            allow((keys >= key_count - valid) & (rows >= key_count - valid))
        else:
            allow((keys < valid) & (rows < valid))
    return visible


def additive_mask(
    rules: MaskRules,
    attn_mask: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
    first_row: int = 0,
) -> torch.Tensor | None:
    """Join the rules and the caller's mask into one additive mask.

    Args:
        rules: see :class:`MaskRules`.
        attn_mask: additive (floating) or boolean (True: visible), broadcastable to
            ``[batch, heads, queries, keys]``; rows already cut to ``q``.
        q: ``[batch, heads, queries, dim]``.
        k: ``[batch, heads, keys, dim]``.
        first_row: position of the first query, when ``q`` is a slice of the queries.

    Returns:
        a mask of ``q``'s dtype, or None when everything is visible. A row that sees nothing is
        minus infinity throughout; its attention output is zero.
    """
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.where(attn_mask, 0.0, float("-inf")).to(q.dtype)
    elif attn_mask is not None and attn_mask.dtype != q.dtype:
        attn_mask = attn_mask.to(q.dtype)
    if not rules.causal and rules.only_causal:
        return attn_mask
    rows = torch.arange(first_row, first_row + q.shape[-2], device=q.device).unsqueeze(1)
    keys = torch.arange(k.shape[-2], device=q.device)
    visible = _visible(rules, rows, keys, k.shape[-2])
    if visible is None:
        return attn_mask
    hidden = visible.logical_not()
    if attn_mask is not None:
        return attn_mask.masked_fill(hidden, float("-inf"))
    zeros = torch.zeros(hidden.shape, dtype=q.dtype, device=q.device)
    return zeros.masked_fill_(hidden, float("-inf"))
