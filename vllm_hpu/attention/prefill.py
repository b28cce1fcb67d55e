"""Attention of prefill rows: all tokens of the step at once, told apart by a mask."""

import torch

from vllm_hpu.attention.cache import PageLayout
from vllm_hpu.attention.derive import PrefillPlan
from vllm_hpu.device import ops

__all__ = ["prefill_attention"]

_LONGEST_WHOLE = 256
"""Tokens up to which the triangle above the diagonal is not worth leaving out."""

_SLICES = 8
"""Most slices of queries; each one is a kernel of its own in the graph."""


def _unfused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    soft_cap: float,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention with capped scores, which the fused kernel does not know.

    Args and result as in :func:`vllm_hpu.device.ops.fused_sdpa`.
    """
    kv_heads = key.shape[1]
    grouped = query.unflatten(1, (kv_heads, -1))
    products = ops.float32_product(grouped, key.unsqueeze(2).transpose(-1, -2))
    scores = torch.tanh(products * (scale / soft_cap)) * soft_cap + mask
    highest = scores.amax(-1, keepdim=True)
    if sinks is not None:
        sink = sinks.to(torch.float32).view(1, kv_heads, -1, 1, 1)
        highest = torch.maximum(highest, sink)
    weights = torch.exp(scores - highest)
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + torch.exp(sink - highest)
    # Divided first, so that what is rounded is no larger than the values.
    weights = (weights / total).to(value.dtype)
    return torch.matmul(weights, value.unsqueeze(2)).flatten(1, 2)


def _slices(tokens: int, keys: int, reach: int | None) -> list[tuple[slice, slice]]:
    """Cut the queries so that each slice meets only the keys it can see.

    Only when query i and key i are the same token (``reach`` given): it sees no later key, and none
    more than ``reach`` tokens back.
    """
    if reach is None or tokens <= _LONGEST_WHOLE:
        return [(slice(0, tokens), slice(0, keys))]
    step = max(_LONGEST_WHOLE, -(-tokens // _SLICES // 128) * 128)
    cuts = []
    for first in range(0, tokens, step):
        end = min(first + step, tokens)
        cuts.append((slice(first, end), slice(max(0, first - reach), end)))
    return cuts


def prefill_attention(
    query: torch.Tensor,
    key: torch.Tensor | None,
    value: torch.Tensor | None,
    pages: torch.Tensor | None,
    plan: PrefillPlan,
    sinks: torch.Tensor | None,
    layout: PageLayout | None,
    scale: float,
    soft_cap: float | None,
    reach: int | None,
) -> torch.Tensor:
    """Attend from all tokens to this step's keys, or to the prefill rows' blocks.

    Args:
        query: ``[tokens, heads, width]``.
        key, value: ``[tokens, kv_heads, width]``; used when the plan lists no pages.
        pages: the cache as ``[pages, block_size * width]``; used when the plan lists pages.
        reach: how many tokens back a token can see within the step, when it sees nothing ahead;
            None when it may.

    Returns:
        ``[tokens, heads, width]``; tokens of decode rows and padding hold anything finite.
    """
    q = query.transpose(0, 1).unsqueeze(0)
    if plan.pages is not None and pages is not None and layout is not None:
        gathered = pages.index_select(0, plan.pages)
        gathered = gathered.view(layout.parts, 1, layout.kv_heads, -1, layout.width)
        k, v = gathered[0], gathered[-1]
        reach = None
    elif key is not None and value is not None:
        k, v = key.transpose(0, 1).unsqueeze(0), value.transpose(0, 1).unsqueeze(0)
    else:
        raise ValueError("prefill attention needs this step's keys and values, or pages to read")
    outputs = []
    for rows, keys in _slices(q.shape[2], k.shape[2], reach):
        part = (q[:, :, rows], k[:, :, keys], v[:, :, keys], plan.mask[rows, keys])
        if soft_cap is None:
            outputs.append(ops.fused_sdpa(*part, scale=scale, sinks=sinks))
        else:
            outputs.append(_unfused(*part, scale=scale, soft_cap=soft_cap, sinks=sinks))
    whole = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
    return whole.squeeze(0).transpose(0, 1)
