"""Attention of decode rows over the paged cache, block by block.

Blocks of all rows stand in one list. Each block gets its row's queries by a product with a one-hot
matrix, so the gather runs on the matrix engine; the partial results of a row's blocks are summed by
the transposed product. Between the two, one softmax per row, in float32: the maximum over its
blocks is taken before the exponential, so no block has to be rescaled afterwards, and weights are
divided by their sum over the row before they meet the values. What is rounded to the model's dtype
is thus no larger than the values themselves, however long the context.

Zeros of the one-hot matrices meet every block and every row: all operands must be finite.
"""

import warnings

import torch

from vllm_hpu.attention.cache import PageLayout
from vllm_hpu.attention.derive import DecodePlan
from vllm_hpu.device import ops

__all__ = ["decode_attention"]

# index_reduce exists on the card and is exact for a maximum; torch calls its interface young.
warnings.filterwarnings("ignore", message=r"index_reduce\(\) is in beta")


def _scores(
    products: torch.Tensor, bias: torch.Tensor, scale: float, soft_cap: float | None
) -> torch.Tensor:
    """Scaled, capped and masked scores, from products; all in float32."""
    if soft_cap is None:
        return torch.add(bias, products, alpha=scale)
    capped = torch.tanh(products * (scale / soft_cap))
    return torch.add(bias, capped, alpha=soft_cap)


def decode_attention(
    query: torch.Tensor,
    pages: torch.Tensor,
    plan: DecodePlan,
    sinks: torch.Tensor | None,
    layout: PageLayout,
    scale: float,
    soft_cap: float | None,
) -> torch.Tensor:
    """Attend from the decode rows' queries to their blocks.

    Args:
        query: ``[tokens, heads, width]``.
        pages: the cache as ``[pages, block_size * width]``, this step's keys and values written.
        sinks: one logit per query head ``[heads]``, or None. It joins each query's softmax once.

    Returns:
        ``[tokens, heads, width]`` in the dtype of the cache; tokens of other rows hold anything
        finite.
    """
    _, heads, width = query.shape
    kv_heads, size = layout.kv_heads, layout.block_size
    blocks, rows = plan.mapping.shape
    length = plan.bias.shape[2]
    # Per block and key-value head: the queries of the heads that share it, position by position.
    share = heads // kv_heads * length

    if plan.gather is None:
        of_rows = query.view(rows, heads * width)
    else:
        ordered = query.index_select(0, plan.gather).view(rows, length, heads, width)
        of_rows = ordered.transpose(1, 2).reshape(rows, -1)
    queries = torch.mm(plan.mapping, of_rows).view(blocks * kv_heads, share, width)

    gathered = pages.index_select(0, plan.pages)
    gathered = gathered.view(layout.parts, blocks * kv_heads, size, width)
    keys, values = gathered[0], gathered[-1]

    products = ops.float32_product(queries, keys.transpose(1, 2))
    scores = _scores(products.view(blocks, heads, length, size), plan.bias, scale, soft_cap)
    highest = plan.floor.index_reduce(0, plan.groups, scores.amax(-1), "amax")
    if sinks is not None:
        sink = sinks.to(torch.float32).view(1, heads, 1)
        highest = torch.maximum(highest, sink)
    shift = highest.index_select(0, plan.groups).unsqueeze(-1)
    weights = scores.sub_(shift).exp_()

    sums = weights.sum(-1).view(blocks, heads * length)
    # At least one for every row with a block: the weight of its highest score, or of its sink.
    total = torch.mm(plan.merge32, sums).view(rows + 1, heads, length)
    if sinks is not None:
        total = total + torch.exp(sink - highest)
    weights = weights.div_(total.index_select(0, plan.groups).unsqueeze(-1))
    weights = weights.to(values.dtype).view(blocks * kv_heads, share, size)
    partial = torch.bmm(weights, values).view(blocks, heads * length * width)
    result = torch.mm(plan.merge, partial).view(rows, heads, length, width)
    if plan.scatter is None:
        return result.view(rows, heads, width)
    result = result.transpose(1, 2).reshape(rows * length, heads, width)
    return result.index_select(0, plan.scatter)
