"""Processes of a group of ranks, each with a card."""

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

CONTEXT = mp.get_context("spawn")


def start_ranks(main, size, *arguments, **environment):
    """Start ``main(rank, size, *arguments)`` in ``size`` processes that see ``environment``."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        ranks = [CONTEXT.Process(target=main, args=(r, size, *arguments)) for r in range(size)]
        for process in ranks:
            process.start()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return ranks


def join_group(rank, size, port, backend="hccl"):
    """Become a rank of the group that meets at a port of this host."""
    import habana_frameworks.torch  # noqa: F401 - registers hccl

    torch.set_num_threads(1)
    torch.hpu.set_device(rank % torch.hpu.device_count())
    dist.init_process_group(
        backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size
    )
