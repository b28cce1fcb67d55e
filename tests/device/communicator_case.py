"""One rank of the communicator's test: ``python -m tests.device.communicator_case RANK PORT FILE``.

Runs every collective through vLLM's own process groups and writes the results to FILE.
"""

import sys

import torch

from tests.device import conftest  # noqa: F401 - activates the device

RANKS = 2
SIZES = [3, 1]


def mine(rank: int, *shape: int) -> torch.Tensor:
    """What a rank brings: distinct numbers, exact in float32 sums."""
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float32) + 1000.0 * (rank + 1)).view(shape)


def collectives(group, rank: int) -> dict[str, torch.Tensor]:
    """The group's collectives, as vLLM's layers call them."""
    device = f"hpu:{rank}"
    communicator = group.device_communicator
    results = {}
    x = mine(rank, 4, 6).to(device)
    results["all_reduce"] = communicator.all_reduce(x)
    results["all_reduce input"] = x
    for dim in (0, 1, -1):
        results[f"all_gather {dim}"] = communicator.all_gather(x, dim)
        results[f"reduce_scatter {dim}"] = communicator.reduce_scatter(x, dim)
    results["all_gather strided"] = communicator.all_gather(x.t(), 0)
    for dst in range(RANKS):
        gathered = communicator.gather(x, dst, dim=1)
        assert (gathered is not None) == (rank == dst)
        if gathered is not None:
            results["gather"] = gathered
    results["broadcast"] = communicator.broadcast(x.clone(), src=1)
    results["all_gatherv even"] = communicator.all_gatherv(x)
    uneven = mine(rank, SIZES[rank], 2).to(device)
    first, second = communicator.all_gatherv([uneven, uneven.int()], sizes=SIZES)
    results["all_gatherv"], results["all_gatherv second"] = first, second
    results["reduce_scatterv"] = communicator.reduce_scatterv(x, dim=0, sizes=SIZES)
    results["reduce_scatterv 1"] = communicator.reduce_scatterv(x, dim=1, sizes=[2, 4])
    if rank == 0:
        communicator.send(x, dst=1)
        results["recv"] = communicator.recv(torch.Size([2, 3]), torch.float32, src=1)
    else:
        results["recv"] = communicator.recv(torch.Size([4, 6]), torch.float32, src=0)
        communicator.send(mine(1, 2, 3).to(device), dst=0)
    return results


def expert_exchange(group, rank: int) -> dict[str, torch.Tensor]:
    """Dispatch and combine as sequence-parallel experts call them."""
    device = f"hpu:{rank}"
    communicator = type(group.device_communicator)(
        group.cpu_group,
        torch.device(device),
        group.device_group,
        unique_name="ep:test",
        use_all2all=True,
    )
    hidden, scores = mine(rank, 3, 2).to(device), mine(rank, 3, 3).to(device)
    ids = torch.full((3, 1), rank, device=device)
    everywhere, logits = communicator.dispatch_router_logits(hidden, scores, True)
    again, weights, all_ids = communicator.dispatch(hidden, scores, ids, True)
    return {
        "dispatch": everywhere,
        "dispatch logits": logits,
        "dispatch again": again,
        "dispatch weights": weights,
        "dispatch ids": all_ids,
        "combine": communicator.combine(everywhere, True),
    }


def main(rank: int, port: int, path: str) -> None:
    from vllm.config import ParallelConfig, VllmConfig, set_current_vllm_config
    from vllm.distributed import (
        destroy_distributed_environment,
        destroy_model_parallel,
        get_tp_group,
        init_distributed_environment,
        initialize_model_parallel,
    )

    from vllm_hpu.distributed.communicator import HpuCommunicator

    torch.hpu.set_device(rank)
    config = VllmConfig(parallel_config=ParallelConfig(tensor_parallel_size=RANKS))
    with set_current_vllm_config(config):
        init_distributed_environment(
            world_size=RANKS,
            rank=rank,
            local_rank=rank,
            distributed_init_method=f"tcp://127.0.0.1:{port}",
            backend="hccl",
        )
        initialize_model_parallel(RANKS, 1, backend="hccl")
        group = get_tp_group()
        assert isinstance(group.device_communicator, HpuCommunicator)
        results = collectives(group, rank)
        results |= expert_exchange(group, rank)
        assert all(value.device.type == "hpu" for value in results.values())
        torch.save({name: value.cpu() for name, value in results.items()}, path)
        destroy_model_parallel()
        destroy_distributed_environment()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
