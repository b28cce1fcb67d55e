"""What every rank does in the tests of ``hccl``: a function per case, run in spawned processes."""

import os
import queue
import traceback
from functools import partial

import pytest
import torch
import torch.distributed as dist

from .ranks import CONTEXT, join_group, start_ranks

DTYPES = [
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


def ramp(rank, count, dtype=torch.float32):
    """Small numbers that every dtype holds exactly; they differ by rank and position."""
    return ((torch.arange(count) + 3 * rank) % 5).to(dtype).to("hpu")


def same(actual, expected):
    """Equal values on the device, whatever the dtype."""
    assert actual.device.type == "hpu"
    left, right = actual.cpu(), expected.cpu()
    assert left.shape == right.shape
    assert left.dtype == right.dtype
    assert torch.equal(left.float(), right.float()), f"{left} is not {right}"


def moves_every_dtype(rank, size):
    for dtype in DTYPES:
        mine = ramp(rank, 6, dtype).reshape(2, 3)
        everyone = [ramp(r, 6, dtype).reshape(2, 3) for r in range(size)]
        sent = mine.clone()
        dist.broadcast(sent, src=size - 1)
        same(sent, everyone[-1])
        parts = [torch.empty_like(mine) for _ in range(size)]
        dist.all_gather(parts, mine)
        for part, expected in zip(parts, everyone, strict=True):
            same(part, expected)
        whole = torch.empty(2 * size, 3, dtype=dtype, device="hpu")
        dist.all_gather_into_tensor(whole, mine)
        same(whole, torch.cat(everyone))
        stacked = torch.empty(size, 2, 3, dtype=dtype, device="hpu")
        dist.all_gather_into_tensor(stacked, mine)
        same(stacked, torch.stack(everyone))
        gathered = [torch.empty_like(mine) for _ in range(size)] if rank == 0 else None
        dist.gather(mine, gathered, dst=0)
        if rank == 0:
            for part, expected in zip(gathered, everyone, strict=True):
                same(part, expected)
        own = torch.empty_like(mine)
        dist.scatter(own, everyone if rank == 1 else None, src=1)
        same(own, mine)


def reduces_every_dtype(rank, size):
    for dtype in DTYPES:
        everyone = torch.stack([ramp(r, 8, dtype).cpu().float() for r in range(size)])
        exact = everyone.sum(0)
        total = (exact != 0) if dtype is torch.bool else exact.to(dtype)
        mine = ramp(rank, 8, dtype)
        dist.all_reduce(mine)
        same(mine, total)
        mine = ramp(rank, 8, dtype)
        dist.reduce(mine, dst=1)
        same(mine, total if rank == 1 else ramp(rank, 8, dtype))
        width = 8 // size
        part = torch.empty(width, dtype=dtype, device="hpu")
        dist.reduce_scatter_tensor(part, ramp(rank, 8, dtype))
        same(part, total[rank * width : (rank + 1) * width])
        dist.reduce_scatter(part, list(ramp(rank, 8, dtype).chunk(size)))
        same(part, total[rank * width : (rank + 1) * width])


def takes_extremes_and_products(rank, size):
    numbers = torch.randint(0, 8, (size, 16), generator=torch.Generator().manual_seed(0))
    ones_and_twos = (numbers > 5) + 1  # whose product stays small
    for dtype in DTYPES:
        for op, values, expected in [
            (dist.ReduceOp.MAX, numbers, numbers.to(dtype).float().amax(0)),
            (dist.ReduceOp.MIN, numbers, numbers.to(dtype).float().amin(0)),
            (dist.ReduceOp.PRODUCT, ones_and_twos, ones_and_twos.prod(0)),
        ]:
            mine = values[rank].to(dtype).to("hpu")
            dist.all_reduce(mine, op=op)
            same(mine, expected.to(dtype))


def averages(rank, size):
    mean = torch.stack([ramp(r, 8).cpu() for r in range(size)]).mean(0)
    mine, reduced = ramp(rank, 8), ramp(rank, 8)
    dist.all_reduce(mine, op=dist.ReduceOp.AVG)
    torch.testing.assert_close(mine.cpu(), mean)
    dist.reduce(reduced, dst=0, op=dist.ReduceOp.AVG)
    torch.testing.assert_close(reduced.cpu(), mean if rank == 0 else ramp(rank, 8).cpu())
    part = torch.empty(8 // size, device="hpu")
    dist.reduce_scatter_tensor(part, ramp(rank, 8), op=dist.ReduceOp.AVG)
    torch.testing.assert_close(part.cpu(), mean.chunk(size)[rank])


def several_in_one_call(rank, size):
    for dtype in DTYPES:
        mine = [ramp(rank, 4, dtype), ramp(rank + 1, 6, dtype).reshape(2, 3)]
        everyone = [[ramp(r, 4, dtype), ramp(r + 1, 6, dtype).reshape(2, 3)] for r in range(size)]
        got = [[torch.empty_like(tensor) for tensor in mine] for _ in range(size)]
        dist.all_gather_coalesced(got, mine)
        for of_one_rank, expected in zip(got, everyone, strict=True):
            for tensor, theirs in zip(of_one_rank, expected, strict=True):
                same(tensor, theirs)
        dist.all_reduce_coalesced(mine, op=dist.ReduceOp.MAX)
        for tensor, theirs in zip(mine, zip(*everyone, strict=True), strict=True):
            same(tensor, torch.stack([t.cpu().float() for t in theirs]).amax(0).to(dtype))


def exchanges(rank, size):
    for dtype in DTYPES:
        sent = torch.cat([ramp(rank * size + peer, 2, dtype) for peer in range(size)])
        got = torch.empty_like(sent)
        dist.all_to_all_single(got, sent)
        same(got, torch.cat([ramp(peer * size + rank, 2, dtype) for peer in range(size)]))
        # Rank r sends peer + 1 rows to each peer, and so gets r + 1 rows from each.
        rows = [peer + 1 for peer in range(size)]
        sent = torch.cat(
            [ramp(rank + peer, 2 * n, dtype).reshape(n, 2) for peer, n in enumerate(rows)]
        )
        got = torch.empty(size * (rank + 1), 2, dtype=dtype, device="hpu")
        dist.all_to_all_single(got, sent, [rank + 1] * size, rows)
        same(
            got,
            torch.cat(
                [ramp(peer + rank, 2 * (rank + 1), dtype).reshape(-1, 2) for peer in range(size)]
            ),
        )
        inputs = [ramp(rank + peer, peer + 1, dtype) for peer in range(size)]
        outputs = [torch.empty(rank + 1, dtype=dtype, device="hpu") for _ in range(size)]
        dist.all_to_all(outputs, inputs)
        for peer, output in enumerate(outputs):
            same(output, ramp(peer + rank, rank + 1, dtype))


def sends_and_receives(rank, size):
    after, before = (rank + 1) % size, (rank - 1) % size
    for dtype in DTYPES:
        got = torch.empty(4, dtype=dtype, device="hpu")
        work = dist.isend(ramp(rank, 4, dtype), after)
        dist.recv(got, before)
        work.wait()
        same(got, ramp(before, 4, dtype))
    got = torch.empty(4, device="hpu")
    sent = ramp(rank, 4)
    works = dist.batch_isend_irecv(
        [dist.P2POp(dist.isend, sent, after), dist.P2POp(dist.irecv, got, before)]
    )
    for work in works:
        work.wait()
    same(got, ramp(before, 4))
    if rank == 0:
        for _ in range(size - 1):
            source = dist.recv(got)
            same(got, ramp(source, 4))
    else:
        dist.send(ramp(rank, 4), 0)
    dist.barrier()
    scalar = torch.tensor(float(rank), device="hpu")
    dist.all_reduce(scalar)
    assert scalar.item() == sum(range(size))


def works_asynchronously(rank, size):
    tensors = [ramp(rank + i, 1000) for i in range(6)]
    works = [dist.all_reduce(t, async_op=True) for t in tensors]
    low = ramp(rank, 8, torch.float8_e4m3fn)
    works.append(dist.all_reduce(low, async_op=True))
    for work in works:
        work.wait()
        assert work.is_completed()
    for i, tensor in enumerate(tensors):
        same(tensor, torch.stack([ramp(r + i, 1000).cpu() for r in range(size)]).sum(0))
    total = torch.stack([ramp(r, 8).cpu() for r in range(size)]).sum(0)
    same(low, total.to(torch.float8_e4m3fn))
    many = [ramp(rank, 4), ramp(rank + 1, 3)]
    with dist._coalescing_manager(async_ops=True) as pending:
        for tensor in many:
            dist.all_reduce(tensor)
    pending.wait()
    for i, tensor in enumerate(many):
        same(tensor, torch.stack([ramp(r + i, tensor.numel()).cpu() for r in range(size)]).sum(0))
    halves = [ramp(rank, 2), ramp(rank, 3, torch.int16)]
    wholes = [
        torch.empty(2 * size, device="hpu"),
        torch.empty(3 * size, dtype=torch.int16, device="hpu"),
    ]
    with dist._coalescing_manager() as pending:
        for whole, half in zip(wholes, halves, strict=True):
            dist.all_gather_into_tensor(whole, half)
    for whole, half in zip(wholes, halves, strict=True):
        parts = [ramp(r, half.numel(), half.dtype).cpu() for r in range(size)]
        same(whole, torch.cat(parts))
    summed = [torch.empty(2, device="hpu"), torch.empty(1, device="hpu")]
    wide = [ramp(rank, 2 * size), ramp(rank, size)]
    with dist._coalescing_manager() as pending:
        for part, whole in zip(summed, wide, strict=True):
            dist.reduce_scatter_tensor(part, whole)
    for part, whole in zip(summed, wide, strict=True):
        total = torch.stack([ramp(r, whole.numel()).cpu() for r in range(size)]).sum(0)
        same(part, total.chunk(size)[rank])


def groups_and_objects(rank, size):
    assert dist.get_backend() == "hccl"
    pairs = [dist.new_group([first, first + 1], backend="hccl") for first in range(0, size, 2)]
    mine = pairs[rank // 2]
    tensor = torch.tensor([float(rank)], device="hpu")
    dist.all_reduce(tensor, group=mine)
    first = rank // 2 * 2
    assert tensor.item() == first + first + 1
    dist.barrier(group=mine)
    objects = [None] * size
    dist.all_gather_object(objects, {"rank": rank})
    assert objects == [{"rank": r} for r in range(size)]
    shared = [rank * 10]
    dist.broadcast_object_list(shared, src=1)
    assert shared == [10]
    dist.monitored_barrier(group=dist.new_group(backend="gloo"))
    with pytest.raises(RuntimeError, match="cpu"):
        dist.all_reduce(torch.ones(2))
    with pytest.raises(ValueError, match="contiguous"):
        dist.all_reduce(torch.ones(4, 4, device="hpu").T[:2])


def everything(rank, size):
    """The cases above in one go: starting the processes is what takes time."""
    moves_every_dtype(rank, size)
    reduces_every_dtype(rank, size)
    takes_extremes_and_products(rank, size)
    averages(rank, size)
    several_in_one_call(rank, size)
    exchanges(rank, size)
    sends_and_receives(rank, size)
    works_asynchronously(rank, size)
    groups_and_objects(rank, size)


def host_device_and_graph(rank, size):
    """A group with a backend per device, and collectives captured into a graph."""
    host_and_device_in_one_group(rank, size)
    inside_a_graph(rank, size)


def host_and_device_in_one_group(rank, size):
    assert torch.hpu.device_count() == 1
    assert torch.hpu.get_device_properties(0).module == rank
    for device in ("cpu", "hpu"):
        tensor = torch.tensor([rank + 1.0], device=device)
        dist.all_reduce(tensor)
        assert tensor.device.type == device
        assert tensor.item() == sum(range(1, size + 1))
    dist.barrier()


def inside_a_graph(rank, size):
    from habana_frameworks.torch.hpu import wrap_in_hpu_graph_func

    def layer(x):
        y = x * 2
        dist.all_reduce(y)
        whole = torch.empty(size * 3, device="hpu")
        dist.all_gather_into_tensor(whole, y)
        return whole + 1

    run = wrap_in_hpu_graph_func(layer)
    for step in range(4):
        y = sum(ramp(r + step, 3).cpu() for r in range(size)) * 2
        same(run(ramp(rank + step, 3)), torch.cat([y] * size) + 1)


def _rank_main(case, rank, size, port, backend, one_card_each, results):
    try:
        if one_card_each:  # as a launcher that gives every rank its own card
            os.environ["HABANA_VISIBLE_MODULES"] = str(rank)
        join_group(rank, size, port, backend)
        globals()[case](rank, size)
        dist.destroy_process_group()
        results.put((rank, None))
    except BaseException:
        results.put((rank, traceback.format_exc()))


def run_case(case, size, port, backend="hccl", timeout_s=150, one_card_each=False, **environment):
    """Run a case in ``size`` spawned processes; raises with the first rank's traceback."""
    results = CONTEXT.Queue()
    main = partial(_rank_main, case)
    ranks = start_ranks(main, size, port, backend, one_card_each, results, **environment)
    try:
        for _ in ranks:
            try:
                rank, error = results.get(timeout=timeout_s)
            except queue.Empty:
                raise AssertionError(f"{case}: no answer within {timeout_s} s") from None
            assert error is None, f"{case}, rank {rank}:\n{error}"
    finally:
        for process in ranks:
            process.join(5)
            if process.is_alive():
                process.terminate()
