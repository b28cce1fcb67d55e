"""How keys and values lie in a page of the KV cache, and how a step writes them.

vLLM hands each layer a cache ``[blocks, kv_heads, block_size, content]``. What stands within the
``block_size * content`` elements of one block and head is the backend's own business. Here it is
``parts`` contiguous *pages* ``[block_size, width]``: first all keys, then all values (``parts`` 2,
``width`` the head size); for a latent cache a single page (``parts`` 1), key and value at once.
Keys beside values, token by token, would make both matrices strided, and a batched matrix product
copies a strided operand before it starts. Heads stay separate: a cache can be split by head.
"""

from typing import NamedTuple

import torch

__all__ = ["PageLayout", "finite", "page_view", "token_rows", "write_kv"]


class PageLayout(NamedTuple):
    """Static numbers of a layer's cache.

    block_size       tokens per block
    kv_heads         key-value heads
    parts            pages per block and head: 2 (keys, values) or 1 (latent)
    width            elements per token and page
    pages_per_block  distance between a block and the next, in pages (``kv_heads * parts`` when
                     blocks are dense)
    """

    block_size: int
    kv_heads: int
    parts: int
    width: int
    pages_per_block: int

    @classmethod
    def of(cls, kv_cache: torch.Tensor, parts: int) -> "PageLayout":
        """Read the numbers off a cache ``[blocks, kv_heads, block_size, parts * width]``.

        Raises:
            ValueError: the pages of a block do not lie side by side.
        """
        _, heads, size, content = kv_cache.shape
        stride, *inner = kv_cache.stride()
        page = size * (content // parts)
        if inner != [size * content, content, 1] or stride % page or content % parts:
            raise ValueError(
                f"the KV cache {tuple(kv_cache.shape)} with strides {kv_cache.stride()} is not "
                f"made of whole pages of {page} elements, which attention on HPU needs; leave "
                "VLLM_KV_CACHE_LAYOUT unset or set it to LBHNC"
            )
        return cls(size, heads, parts, content // parts, stride // page)


def page_view(kv_cache: torch.Tensor, layout: PageLayout) -> torch.Tensor:
    """``kv_cache`` seen as ``[pages, block_size * width]``, without a copy."""
    page = layout.block_size * layout.width
    if kv_cache.is_contiguous():
        return kv_cache.view(-1, page)
    blocks = kv_cache.shape[0]
    pages = (blocks - 1) * layout.pages_per_block + layout.kv_heads * layout.parts
    return kv_cache.as_strided((pages, page), (page, 1))


def token_rows(slot_mapping: torch.Tensor, layout: PageLayout) -> torch.Tensor:
    """Where the keys and values of each token go.

    Args:
        slot_mapping: int64 ``[tokens]``, ``block * block_size + offset``; anything below zero is
            padding and goes to slot 0, which lies in vLLM's null block.

    Returns:
        int64 ``[parts * tokens * kv_heads]``: rows of the cache seen as ``[rows, width]``.
    """
    slots = slot_mapping.clamp_min(0)
    if layout.pages_per_block == 1:
        return slots
    block = torch.div(slots, layout.block_size, rounding_mode="floor")
    first = slots + block * (layout.block_size * (layout.pages_per_block - 1))
    heads = torch.arange(layout.kv_heads, device=slots.device) * layout.parts
    parts = torch.arange(layout.parts, device=slots.device)
    pages = parts.view(-1, 1, 1) + heads.view(1, 1, -1)
    return (first.view(1, -1, 1) + pages * layout.block_size).flatten()


def finite(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` with zeros for what is NaN or infinite.

    Padding tokens hold anything, and tokens of all requests meet in products whose other operand
    is zero where they must not: 0 times NaN would carry one token's NaN to everybody, and from the
    cache to whoever gets the block next.
    """
    return torch.where(torch.isfinite(tensor), tensor, 0.0)


def write_kv(pages: torch.Tensor, source: torch.Tensor, rows: torch.Tensor) -> None:
    """Write a step's keys and values into the cache.

    Args:
        pages: the cache as ``[pages, block_size * width]``.
        source: ``[parts * tokens, kv_heads, width]``, keys and then values, made :func:`finite`;
            for a latent cache there is one part.
        rows: from :func:`token_rows`.
    """
    width = source.shape[-1]
    pages.view(-1, width).index_copy_(0, rows, source.reshape(-1, width).to(pages.dtype))
