"""``hpu::sdpa_recomp_bwd`` and ``hpu::sdpa_bwd``: gradients of fused attention.

Schemas: habana_eager/eager_custom_op_register.cpp of HabanaAI/gaudi-pytorch-bridge. Both compute in
float32: with the weights ``P`` and what dropout makes of a weight, ``D`` (0, or 1 / (1 - p)),
``dV = (P D)^T dO`` and ``dS = P * (D (dO V^T) - rowsum(dO * O))``.
"""

import torch

from .library import operator
from .sdpa import as_4d, mask_as_4d, scores_of
from .sdpa_dropout import keep_mask
from .sdpa_mask import MaskRules

__all__ = ["sdpa_bwd", "sdpa_recomp_bwd"]

_WIDE = torch.float32


def _per_query_head(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys or values ``[batch, heads, keys, dim]`` in float32, repeated for grouped queries."""
    wide = as_4d(tensor).to(_WIDE)
    return wide.repeat_interleave(heads // wide.shape[1], dim=1)


def _of_group(gradient: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Sum over the query heads that share one key or value head; the shape of ``like``."""
    four = as_4d(like)
    if four.shape[1] != gradient.shape[1]:
        gradient = gradient.unflatten(1, (four.shape[1], -1)).sum(dim=2)
    if four.shape[0] != gradient.shape[0]:
        gradient = gradient.sum(dim=0, keepdim=True)
    return gradient.reshape(like.shape).to(like.dtype)


def _gradients(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    weights: torch.Tensor,
    scale: float,
    out: torch.Tensor,
    kept: torch.Tensor | None,
    p: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients from ``weights``, float32 ``[batch, heads, queries, keys]``.

    ``kept`` says where dropout kept a weight, in the same shape; None without dropout.
    """
    queries = as_4d(q).to(_WIDE)
    heads = queries.shape[1]
    keys, values = _per_query_head(k, heads), _per_query_head(v, heads)
    d_out = as_4d(grad).to(_WIDE)
    row = (d_out * as_4d(out).to(_WIDE)).sum(-1, keepdim=True)
    d_weights = d_out @ values.mT
    used = weights
    if kept is not None:
        factor = kept.to(_WIDE) * (0.0 if p == 1.0 else 1.0 / (1.0 - p))
        used, d_weights = weights * factor, d_weights * factor
    d_values = used.mT @ d_out
    d_scores = weights * (d_weights - row) * scale
    d_queries = (d_scores @ keys).reshape(q.shape).to(q.dtype)
    return d_queries, _of_group(d_scores.mT @ queries, k), _of_group(d_values, v)


def _fake(grad, q, k, v, *args):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


@operator(
    "sdpa_recomp_bwd(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? attention_mask, Tensor m,"
    " Tensor linv, Tensor? seed, bool is_causal, float p, float scale, str softmax_mode,"
    " Tensor fwd_out) -> (Tensor, Tensor, Tensor)",
    _fake,
)
def sdpa_recomp_bwd(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attention_mask: torch.Tensor | None,
    m: torch.Tensor,
    linv: torch.Tensor,
    seed: torch.Tensor | None,
    is_causal: bool,
    p: float,
    scale: float,
    softmax_mode: str,
    fwd_out: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of ``q``, ``k``, ``v``, from the statistics that the forward operator returned.

    Args:
        grad: of the output.
        m, linv: row maximum and inverse row sum, ``[..., queries, 1]``.
        seed: of the dropout, int32 ``[1]``.
        fwd_out: the output.

    The other arguments are those of the forward operator.
    """
    rules = MaskRules(is_causal, (-1, -1), None, False)
    q4, k4 = as_4d(q), as_4d(k)
    scores = scores_of(q4, k4, mask_as_4d(attention_mask, q), rules, scale)
    weights = torch.exp(scores - as_4d(m).to(_WIDE)) * as_4d(linv).to(_WIDE)
    kept = keep_mask(seed, tuple(weights.shape), p) if p and seed is not None else None
    return _gradients(grad, q, k, v, weights, scale, fwd_out, kept, p)


@operator(
    "sdpa_bwd(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor P, Tensor? dm, bool is_causal,"
    " float p, float scale, Tensor fwd_out) -> (Tensor, Tensor, Tensor)",
    _fake,
)
def sdpa_bwd(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    P: torch.Tensor,
    dm: torch.Tensor | None,
    is_causal: bool,
    p: float,
    scale: float,
    fwd_out: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of ``q``, ``k``, ``v``, from the probabilities ``P`` of the forward operator.

    Args:
        grad: of the output.
        dm: the dropout mask of the forward operator.
        fwd_out: the output.
    """
    kept = as_4d(dm) if p and dm is not None else None
    return _gradients(grad, q, k, v, as_4d(P).to(_WIDE), scale, fwd_out, kept, p)
