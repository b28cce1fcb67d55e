"""Softmax over scaled and masked scores, as one operator.

Schemas: scripts/hpu_op.yaml of HabanaAI/gaudi-pytorch-bridge. All compute in float32 and round
once.
"""

import torch

from .library import operator

__all__ = [
    "scaled_masked_softmax",
    "scaled_masked_triangular_softmax",
    "scaled_triangular_softmax",
    "scaled_triangular_softmax_retain",
]


def _positions(size: int, like: torch.Tensor) -> torch.Tensor:
    return torch.arange(size, dtype=torch.int32, device=like.device)


def _visible(scores: torch.Tensor) -> torch.Tensor:
    """Lower triangle ``[queries, keys]``; the last query sees all keys."""
    queries, keys = scores.shape[-2:]
    last = _positions(queries, scores) + (keys - queries)
    return _positions(keys, scores) <= last.unsqueeze(-1)


def _fake_masked(input, mask, scale):
    return torch.empty_like(input)


@operator("scaled_masked_softmax(Tensor input, Tensor mask, float scale) -> Tensor", _fake_masked)
def scaled_masked_softmax(input: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    """``softmax(input * scale + mask)`` over the last dimension; ``mask`` broadcasts."""
    scores = input.to(torch.float32) * scale + mask
    return torch.softmax(scores, dim=-1).to(input.dtype)


def _fake_triangular(self, inv_scale_attn, exp_sum_recpr=None, max=None):
    return torch.empty_like(self)


@operator(
    "scaled_triangular_softmax(Tensor self, float inv_scale_attn, Tensor? exp_sum_recpr=None,"
    " Tensor? max=None) -> Tensor",
    _fake_triangular,
)
def scaled_triangular_softmax(
    self: torch.Tensor,
    inv_scale_attn: float,
    exp_sum_recpr: torch.Tensor | None = None,
    max: torch.Tensor | None = None,
) -> torch.Tensor:
    """``softmax(self * inv_scale_attn)`` where key ``j`` is visible to query ``i >= j``.

    Args:
        self: ``[batch, queries, keys]``.
        inv_scale_attn: factor of the scores.
        exp_sum_recpr, max: what :func:`scaled_triangular_softmax_retain` returned, to use again.
    """
    if (exp_sum_recpr is None) != (max is None):
        raise ValueError(
            "scaled_triangular_softmax: exp_sum_recpr and max belong together; pass both or none"
        )
    if exp_sum_recpr is None or max is None:
        return scaled_triangular_softmax_retain(self, inv_scale_attn)[0]
    scores = (self.to(torch.float32) * inv_scale_attn).masked_fill(~_visible(self), -torch.inf)
    return ((scores - max).exp() * exp_sum_recpr).to(self.dtype)


def _fake_retain(self, inv_scale_attn):
    column = self.new_empty((*self.shape[:-1], 1), dtype=torch.float32)
    return torch.empty_like(self), column, torch.empty_like(column, dtype=self.dtype)


@operator(
    "scaled_triangular_softmax_retain(Tensor self, float inv_scale_attn)"
    " -> (Tensor, Tensor, Tensor)",
    _fake_retain,
)
def scaled_triangular_softmax_retain(
    self: torch.Tensor, inv_scale_attn: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """:func:`scaled_triangular_softmax` with the statistics of its rows.

    Returns:
        the result, the inverse sum of exponentials in float32 and the maximum in the input's
        dtype, both ``[batch, queries, 1]``.
    """
    scores = (self.to(torch.float32) * inv_scale_attn).masked_fill(~_visible(self), -torch.inf)
    # Rounded before it is subtracted, so that the result can be computed again from it.
    maximum = scores.amax(dim=-1, keepdim=True).to(self.dtype)
    exponentials = (scores - maximum).exp()
    inverse = exponentials.sum(dim=-1, keepdim=True).reciprocal()
    return (exponentials * inverse).to(self.dtype), inverse, maximum


def _fake_window(
    self, start_end, inv_scale_attn, grouped_batch_size, use_max, mode, out_dtype=None
):
    return torch.empty_like(self, dtype=out_dtype or self.dtype)


@operator(
    "scaled_masked_triangular_softmax(Tensor self, Tensor start_end, float inv_scale_attn,"
    " int grouped_batch_size, bool use_max, int mode, ScalarType? out_dtype=None) -> Tensor",
    _fake_window,
)
def scaled_masked_triangular_softmax(
    self: torch.Tensor,
    start_end: torch.Tensor,
    inv_scale_attn: float,
    grouped_batch_size: int,
    use_max: bool,
    mode: int,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """:func:`scaled_triangular_softmax` with only the keys from ``start`` to before ``end``.

    Args:
        self: ``[batch, queries, keys]``.
        start_end: int, a pair for every ``grouped_batch_size`` entries of the batch; any shape.
        use_max, mode: choose between kernels of the card; here all are exact.
        out_dtype: default the input's dtype.

    Returns:
        ``[batch, queries, keys]``; a row that sees no key is zero.
    """
    batch, _, keys = self.shape
    pairs = start_end.reshape(-1, 2).repeat_interleave(grouped_batch_size, dim=0)
    if pairs.shape[0] != batch:
        raise ValueError(
            f"scaled_masked_triangular_softmax: start_end covers {pairs.shape[0]} entries in "
            f"groups of {grouped_batch_size}, the batch has {batch}"
        )
    position = _positions(keys, self)
    start, end = pairs[:, 0, None, None], pairs[:, 1, None, None]
    visible = _visible(self) & (position >= start) & (position < end)
    scores = (self.to(torch.float32) * inv_scale_attn).masked_fill(~visible, -torch.inf)
    weights = torch.softmax(scores, dim=-1).masked_fill(~visible, 0.0)
    return weights.to(out_dtype or self.dtype)
