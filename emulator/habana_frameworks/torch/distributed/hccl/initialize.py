"""``initialize_distributed_hpu``: which rank is this process, by its launcher's variables?"""

import os

__all__ = ["initialize_distributed_hpu"]

_LAUNCHERS = (
    ("WORLD_SIZE", "RANK", "LOCAL_RANK"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
)


def initialize_distributed_hpu(
    world_size: int | None = None, rank: int | None = None, local_rank: int | None = None
) -> tuple[int, int, int]:
    """World size, rank and local rank; what is not given comes from torchrun's or MPI's variables.

    Outside any launcher the process is rank 0 of 1. Source: docs.habana.ai, "Distributed
    training": the function of the same name.
    """
    names = next((names for names in _LAUNCHERS if names[0] in os.environ), _LAUNCHERS[0])

    def known(value: int | None, name: str, default: int) -> int:
        return int(os.environ.get(name, default)) if value is None else value

    return (
        known(world_size, names[0], 1),
        known(rank, names[1], 0),
        known(local_rank, names[2], 0),
    )
