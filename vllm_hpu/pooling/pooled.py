"""What vLLM's poolers compute, for all rows or tokens of a step at once.

A pooler of vLLM picks tokens by a step's lengths and applies its head request by request. Here the
picking has one shape, and the head gives its result twice, with and without its activation; which
of the two a request gets is a matter of reading. Sizes that a request asks for (Matryoshka
embeddings, arXiv:2205.13147) are columns left out before the activation.

`R` is the number of rows, `T` of tokens, `H` the hidden size, `D` the size of a result.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from vllm.model_executor.layers.pooler.seqwise import (
    ClassifierPoolerHead,
    CLSPool,
    EmbeddingPoolerHead,
    LastPool,
    MeanPool,
    SequencePooler,
)
from vllm.model_executor.layers.pooler.tokwise import (
    AllPool,
    TokenClassifierPoolerHead,
    TokenEmbeddingPoolerHead,
    TokenPooler,
)

from vllm_hpu.kernels.rows import lengths_of, rows_of, take

__all__ = ["Pooled", "is_planned", "is_tokenwise", "pool"]

_ROW_METHODS = (CLSPool, LastPool, MeanPool)
_HEADS = (
    EmbeddingPoolerHead,
    ClassifierPoolerHead,
    TokenEmbeddingPoolerHead,
    TokenClassifierPoolerHead,
)


class Pooled(NamedTuple):
    """Results of a pooler, [R, D] or, of a tokenwise one, [T, D].

    plain      without the head's activation
    activated  with it
    """

    plain: torch.Tensor
    activated: torch.Tensor


def is_tokenwise(pooler: Any) -> bool:
    """Whether a pooler gives a result per token."""
    return isinstance(pooler, TokenPooler)


def is_planned(pooler: Any) -> bool:
    """Whether :func:`pool` computes what ``pooler`` does."""
    if type(getattr(pooler, "head", None)) not in _HEADS:
        return False
    if is_tokenwise(pooler):
        return type(pooler).forward is TokenPooler.forward and type(pooler.pooling) is AllPool
    return _has_planned_rows(pooler)


def _has_planned_rows(pooler: Any) -> bool:
    """Whether :func:`_pick` knows how ``pooler`` gets one vector per row.

    A classifier may stand on a pooler of its encoder, which has no activation to choose.
    """
    if not isinstance(pooler, SequencePooler) or type(pooler).forward is not SequencePooler.forward:
        return False
    method: Any = pooler.pooling
    return type(method) in _ROW_METHODS or (
        type(getattr(method, "head", None)) is EmbeddingPoolerHead
        and method.head.activation is None
        and _has_planned_rows(method)
    )


def pool(pooler: Any, hidden: torch.Tensor, starts: torch.Tensor, sizes: torch.Tensor) -> Pooled:
    """The results of ``pooler`` for all rows, or all tokens.

    Args:
        hidden: ``[T, H]``, hidden states; anything behind the last row's.
        starts: int32 ``[R + 1]``, the first token of each row; padding rows repeat the last value.
        sizes: int32 ``[R]``, columns of its result that a row wants; 0 for all.
    """
    if is_tokenwise(pooler):
        rows = rows_of(starts, sizes.shape[0], hidden.shape[0]).clamp_max(sizes.shape[0] - 1)
        return _apply(pooler.head, hidden, take(sizes, rows))
    return _apply(pooler.head, _pick(pooler.pooling, hidden, starts), sizes)


def _pick(method: Any, hidden: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """One vector [R, H] for each row; any for padding rows."""
    if isinstance(method, SequencePooler):
        vectors = _pick(method.pooling, hidden, starts)
        return _apply(method.head, vectors, torch.zeros_like(starts[1:])).plain
    count, tokens = starts.shape[0] - 1, hidden.shape[0]
    if isinstance(method, CLSPool):
        return take(hidden, starts[:-1].clamp_max(tokens - 1))
    if isinstance(method, LastPool):
        return take(hidden, (starts[1:] - 1).clamp_min(0))
    row = rows_of(starts, count, tokens)  # tokens of nobody are added up behind the rows
    sums = torch.zeros(count + 1, hidden.shape[1], dtype=torch.float32, device=hidden.device)
    sums.index_add_(0, row, hidden.to(torch.float32))
    return sums[:count] / lengths_of(starts, count).clamp_min(1)[:, None]


def _apply(head: Any, data: torch.Tensor, sizes: torch.Tensor) -> Pooled:
    """The head's results for ``data`` [N, H]; ``sizes`` int32 [N]."""
    if head.head_dtype is not None:
        data = data.to(head.head_dtype)
    if isinstance(head, EmbeddingPoolerHead | TokenEmbeddingPoolerHead):
        plain = data if head.projector is None else head.projector(data)
        column = torch.arange(plain.shape[-1], dtype=sizes.dtype, device=sizes.device)
        plain = plain.masked_fill((sizes > 0)[:, None] & (column >= sizes[:, None]), 0)
    else:
        # Never the hidden states themselves: the next forward writes there while results are read.
        plain = data.clone() if head.classifier is None else head.classifier(data)
        if head.logit_mean is not None:
            plain = plain - head.logit_mean
        if head.logit_sigma is not None:
            plain = plain / head.logit_sigma
    return Pooled(plain, plain if head.activation is None else head.activation(plain))
