"""Decisions that all ranks of an engine must take alike, because their graphs hold collectives."""

from __future__ import annotations

import torch
import torch.distributed as dist
from vllm.distributed.parallel_state import get_world_group


def from_first_rank(value: int) -> int:
    """The ``value`` of the first rank, on every rank."""
    group = get_world_group()
    if group.world_size == 1:
        return value
    message = torch.tensor([value], dtype=torch.int64)
    dist.broadcast(message, src=group.ranks[0], group=group.cpu_group)
    return int(message[0])


def least(*values: int) -> tuple[int, ...]:
    """The least of each of ``values`` over all ranks, on every rank."""
    group = get_world_group()
    if group.world_size == 1:
        return values
    message = torch.tensor(values, dtype=torch.int64)
    dist.all_reduce(message, op=dist.ReduceOp.MIN, group=group.cpu_group)
    return tuple(int(value) for value in message)
