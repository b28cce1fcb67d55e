"""The collectives over host memory, each as a function of (backend, written, read) tensors.

``written`` are the tensors a collective fills, ``read`` those it only reads; both are views of
device memory. Every function starts the transfer and returns it as :class:`Pending`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroupGloo, ReduceOp

from .wire import as_bytes, average_as_sum, concatenated, movable, reducible

__all__ = ["Pending"]

Tensors = Sequence[torch.Tensor]


class Pending(NamedTuple):
    """Transfers under way.

    Attributes:
        works: gloo's handles.
        finish: what remains to be done on the host after all of them, or None.
        any_source: whether it is a receive from whoever sends first.
    """

    works: list[dist.Work]
    finish: Callable[[], None] | None = None
    any_source: bool = False

    def source_rank(self) -> int:
        """Who has sent, after a receive from anyone; else -1."""
        return self.works[0]._source_rank() if self.any_source else -1


def _together(pendings: Sequence[Pending]) -> Pending:
    """Several transfers as one."""
    finishes = [pending.finish for pending in pendings if pending.finish is not None]

    def finish() -> None:
        for step in finishes:
            step()

    works = [work for pending in pendings for work in pending.works]
    return Pending(works, finish if finishes else None)


def _unpack(buffer: torch.Tensor, targets: Tensors) -> None:
    """Copy a flat buffer of bytes into tensors, one behind the other."""
    position = 0
    for target in targets:
        raw = as_bytes(target)
        raw.copy_(buffer[position : position + raw.numel()].view(raw.shape))
        position += raw.numel()


def broadcast(root: int):
    """Rank ``root``'s tensors to everyone."""

    def run(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
        options = dist.BroadcastOptions()
        options.rootRank = root
        return Pending([backend.broadcast([movable(t)], options) for t in written])

    return run


def all_reduce(op: ReduceOp.RedOpType):
    """Element-wise reduction over the group, in place."""
    op, average = average_as_sum(op)

    def run(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
        options = dist.AllreduceOptions()
        options.reduceOp = op
        wire = [reducible(tensor) for tensor in written]
        works = [backend.allreduce([tensor], options) for tensor in wire]

        def finish() -> None:
            for tensor, reduced in zip(written, wire, strict=True):
                result = reduced / backend.size() if average else reduced
                if result is not tensor:
                    tensor.copy_(result)

        exact = not average and all(a is b for a, b in zip(written, wire, strict=True))
        return Pending(works, None if exact else finish)

    return run


def reduce(op: ReduceOp.RedOpType, root: int):
    """As :func:`all_reduce`, the result on rank ``root`` only."""
    op, average = average_as_sum(op)

    def run(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
        options = dist.ReduceOptions()
        options.reduceOp = op
        options.rootRank = root
        # gloo uses the other ranks' tensors as scratch space: they must not change.
        wire = [
            t if backend.rank() == root and reducible(t) is t else reducible(t).clone()
            for t in written
        ]
        works = [backend.reduce([tensor], options) for tensor in wire]

        def finish() -> None:
            if backend.rank() != root:
                return
            for tensor, reduced in zip(written, wire, strict=True):
                result = reduced / backend.size() if average else reduced
                if result is not tensor:
                    tensor.copy_(result)

        return Pending(works, finish)

    return run


def all_gather(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
    """Every rank's tensor into a list of tensors, one per rank."""
    return Pending([backend.allgather([[movable(t) for t in written]], [movable(read[0])])])


def all_gather_coalesced(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
    """:func:`all_gather` of several tensors; ``written`` has rank 0's first, then rank 1's, ..."""
    if len(written) != len(read) * backend.size():
        raise ValueError(
            f"hccl all_gather_coalesced: {len(read)} tensors of {backend.size()} ranks need "
            f"{len(read) * backend.size()} outputs, not {len(written)}"
        )
    return _together(
        [all_gather(backend, written[i :: len(read)], [tensor]) for i, tensor in enumerate(read)]
    )


def all_gather_into(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
    """Every rank's tensor into one tensor, rank by rank; several pairs at once."""
    works = []
    for output, tensor in zip(written, read, strict=True):
        if output.numel() != tensor.numel() * backend.size() or output.dtype != tensor.dtype:
            raise ValueError(
                f"hccl all_gather: the output {tuple(output.shape)} {output.dtype} must hold "
                f"{backend.size()} tensors of {tuple(tensor.shape)} {tensor.dtype}"
            )
        flat_output = movable(output).reshape(-1)
        works.append(backend._allgather_base(flat_output, movable(tensor).reshape(-1)))
    return Pending(works)


def reduce_scatter(op: ReduceOp.RedOpType):
    """Reduce, then keep this rank's part: ``written[0]``; ``read`` has one tensor per rank."""
    op, average = average_as_sum(op)

    def run(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
        (output,) = written
        flat = torch.cat([reducible(tensor).flatten() for tensor in read])
        if flat.numel() != output.numel() * backend.size():
            raise ValueError(
                f"hccl reduce_scatter: the inputs hold {flat.numel()} elements, the output "
                f"{output.numel()} times {backend.size()} ranks"
            )
        options = dist.AllreduceOptions()
        options.reduceOp = op
        work = backend.allreduce([flat], options)

        def finish() -> None:
            mine = flat.view(backend.size(), -1)[backend.rank()]
            output.copy_((mine / backend.size() if average else mine).view(output.shape))

        return Pending([work], finish)

    return run


def reduce_scatter_coalesced(op: ReduceOp.RedOpType):
    """:func:`reduce_scatter` of several (output, input) pairs."""
    single = reduce_scatter(op)

    def run(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
        return _together(
            [single(backend, [out], [tensor]) for out, tensor in zip(written, read, strict=True)]
        )

    return run


def gather(root: int):
    """Every rank's ``read[0]`` into ``written`` (one tensor per rank) on rank ``root``."""

    def run(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
        options = dist.GatherOptions()
        options.rootRank = root
        outputs = [[movable(t) for t in written]] if backend.rank() == root else []
        return Pending([backend.gather(outputs, [movable(read[0])], options)])

    return run


def scatter(root: int):
    """``read`` (one tensor per rank) of rank ``root`` into everyone's ``written[0]``."""

    def run(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
        options = dist.ScatterOptions()
        options.rootRank = root
        inputs = [[movable(t) for t in read]] if backend.rank() == root else []
        return Pending([backend.scatter([movable(written[0])], inputs, options)])

    return run


def all_to_all_single(output_splits: list[int], input_splits: list[int]):
    """Parts of ``read[0]`` to every rank, parts from every rank into ``written[0]``."""

    def run(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
        output, tensor = as_bytes(written[0]), as_bytes(read[0])
        return Pending([backend.alltoall_base(output, tensor, output_splits, input_splits)])

    return run


def all_to_all(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
    """``read[i]`` to rank ``i``, ``written[i]`` from rank ``i``; any sizes."""
    sent = concatenated(read)
    received = torch.empty(sum(t.numel() * t.element_size() for t in written), dtype=torch.uint8)
    work = backend.alltoall_base(
        received,
        sent,
        [t.numel() * t.element_size() for t in written],
        [t.numel() * t.element_size() for t in read],
    )
    return Pending([work], lambda: _unpack(received, written))


def send(peer: int, tag: int):
    """``read`` to rank ``peer``."""

    def run(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
        return Pending([backend.send([movable(read[0])], peer, tag)])

    return run


def receive(peer: int | None, tag: int):
    """``written`` from rank ``peer``, or from whoever sends first."""

    def run(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
        target = [movable(written[0])]
        if peer is None:
            return Pending([backend.recv_anysource(target, tag)], any_source=True)
        return Pending([backend.recv(target, peer, tag)])

    return run


def barrier(backend: ProcessGroupGloo, written: Tensors, read: Tensors) -> Pending:
    """Wait for everyone."""
    return Pending([backend.barrier(dist.BarrierOptions())])
