"""Random steps for the attention tests, and what attention means for them, densely in float64."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from vllm_hpu.attention.impl import HpuAttentionImpl
from vllm_hpu.attention.metadata import HpuAttentionMetadata
from vllm_hpu.attention.shape import AttentionShape


@dataclass
class Row:
    """One sequence: ``computed`` tokens in the cache before the step, ``new`` tokens in it."""

    computed: int
    new: int


@dataclass
class Case:
    """One step of one layer.

    ``loud`` is what the last 16 elements of each query and key hold, if not 0: a large product that
    is the same for all. ``scaled`` is the factor of the scores, if not that of the width.

    Rows must stand in the runner's order: those with at most ``queries`` new tokens first.
    """

    rows: list[Row]
    heads: int = 4
    kv_heads: int = 2
    width: int = 32
    block_size: int = 16
    queries: int = 1
    window: int | None = None
    soft_cap: float | None = None
    sinks: bool = False
    causal: bool = True
    dtype: torch.dtype = torch.float32
    scaled: float | None = None
    loud: float = 0.0
    padding_tokens: int = 0
    padding_rows: int = 0
    spare_blocks: int = 0
    decode_rows: int | None = None
    seed: int = 0

    @property
    def scale(self) -> float:
        return self.scaled or 1.0 / math.sqrt(self.width)

    @property
    def tokens(self) -> int:
        return sum(row.new for row in self.rows)

    def blocks(self, row: Row) -> int:
        return -(-(row.computed + row.new) // self.block_size)


@dataclass
class Step:
    """Tensors of a case on the device, and its full keys and values on the host."""

    case: Case
    metadata: HpuAttentionMetadata
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    cache: torch.Tensor
    sinks: torch.Tensor | None
    full_keys: list[torch.Tensor]
    full_values: list[torch.Tensor]


def _shape(case: Case, total: int) -> AttentionShape:
    short = [row for row in case.rows if row.new <= case.queries]
    first_long = len(short)
    assert all(row.new > case.queries for row in case.rows[first_long:]), "rows out of order"
    decode_rows = case.decode_rows if case.decode_rows is not None else first_long
    decode_rows += case.padding_rows if first_long == len(case.rows) else 0
    late = [r for i, r in enumerate(case.rows) if i >= decode_rows or r.new > case.queries]
    early = [r for i, r in enumerate(case.rows) if i < decode_rows and r.new <= case.queries]
    cached = any(row.computed for row in late)
    return AttentionShape(
        tokens=total,
        decode_rows=decode_rows,
        decode_queries=case.queries,
        decode_blocks=sum(case.blocks(row) for row in early) + case.spare_blocks,
        has_prefill=bool(late),
        prefill_blocks=(sum(case.blocks(r) for r in late) + case.spare_blocks) if cached else 0,
    )


def make(case: Case, device: torch.device | str, parts: int = 2) -> Step:
    """Lay a case out as the runner would: blocks in random order, stale blocks full of junk."""
    rng = np.random.default_rng(case.seed)
    generator = torch.Generator().manual_seed(case.seed)
    total = case.tokens + case.padding_tokens

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(case.dtype)

    def scored(*shape: int) -> torch.Tensor:
        made = normal(*shape)
        if case.loud:
            made[..., -16:] = case.loud
        return made

    needed = sum(case.blocks(row) for row in case.rows)
    count = needed + 8
    order = rng.permutation(np.arange(1, count))
    width = max(case.blocks(row) for row in case.rows) + 2
    table = np.zeros((len(case.rows) + case.padding_rows, width), dtype=np.int32)
    pages = normal(count, case.kv_heads, parts, case.block_size, case.width) * 3

    keys, values, slots, used = [], [], [], 0
    for index, row in enumerate(case.rows):
        length = row.computed + row.new
        blocks = order[used : used + case.blocks(row)]
        used += len(blocks)
        table[index, : len(blocks)] = blocks
        k = scored(length, case.kv_heads, case.width)
        v = normal(length, case.kv_heads, case.width) if parts == 2 else k
        keys.append(k)
        values.append(v)
        for position in range(length):
            block, offset = int(blocks[position // case.block_size]), position % case.block_size
            if position >= row.computed:
                slots.append(block * case.block_size + offset)
                continue
            pages[block, :, 0, offset] = k[position]
            pages[block, :, -1, offset] = v[position]

    lengths = [row.new for row in case.rows] + [0] * case.padding_rows
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    ends = [row.computed + row.new for row in case.rows] + [0] * case.padding_rows
    pad = case.padding_tokens
    new_keys = [k[row.computed :] for k, row in zip(keys, case.rows, strict=True)]
    new_values = [v[row.computed :] for v, row in zip(values, case.rows, strict=True)]
    metadata = HpuAttentionMetadata(
        shape=_shape(case, total),
        query_start_loc=torch.from_numpy(starts).to(device),
        seq_lens=torch.tensor(ends, dtype=torch.int32, device=device),
        block_table=torch.from_numpy(table).to(device),
        slot_mapping=torch.tensor(slots + [-1] * pad, dtype=torch.int64, device=device),
        causal=case.causal,
        longest=4096,
    )
    padding = normal(pad, case.kv_heads, case.width)
    cache = pages.reshape(count, case.kv_heads, case.block_size, parts * case.width)
    return Step(
        case=case,
        metadata=metadata,
        query=scored(total, case.heads, case.width).to(device),
        key=torch.cat([*new_keys, padding]).to(device),
        value=torch.cat([*new_values, padding]).to(device),
        cache=cache.to(device),
        sinks=(normal(case.heads) * 2).to(device) if case.sinks else None,
        full_keys=keys,
        full_values=values,
    )


def impl_for(case: Case, sinks: torch.Tensor | None) -> HpuAttentionImpl:
    """A layer like that of ``case``."""
    return HpuAttentionImpl(
        case.heads,
        case.width,
        case.scale,
        case.kv_heads,
        sliding_window=case.window,
        logits_soft_cap=case.soft_cap,
        sinks=sinks,
    )


def reference(step: Step) -> torch.Tensor:
    """Softmax attention of each row's new tokens, float64 ``[real tokens, heads, width]``."""
    case = step.case
    query = step.query.cpu().double()
    share = case.heads // case.kv_heads
    outputs, first = [], 0
    for row, k, v in zip(case.rows, step.full_keys, step.full_values, strict=True):
        q = query[first : first + row.new].transpose(0, 1)
        first += row.new
        keys = k.double().transpose(0, 1).repeat_interleave(share, 0)
        values = v.double().transpose(0, 1).repeat_interleave(share, 0)
        scores = q @ keys.transpose(1, 2) * case.scale
        if case.soft_cap is not None:
            scores = case.soft_cap * torch.tanh(scores / case.soft_cap)
        at = torch.arange(row.computed, row.computed + row.new)[:, None]
        key_at = torch.arange(keys.shape[1])[None, :]
        seen = key_at <= at if case.causal else torch.ones_like(key_at <= at)
        if case.window is not None:
            seen = seen & (key_at > at - case.window)
            if not case.causal:
                seen = seen & (key_at < at + case.window)
        scores = scores.masked_fill(~seen, float("-inf"))
        if step.sinks is not None:
            column = step.sinks.cpu().double().view(-1, 1, 1).expand(-1, row.new, 1)
            weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
        else:
            weights = scores.softmax(-1)
        outputs.append((weights @ values).transpose(0, 1))
    return torch.cat(outputs)
