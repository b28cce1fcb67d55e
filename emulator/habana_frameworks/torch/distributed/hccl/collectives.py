"""The operators ``c10d::*`` for tensors on ``hpu``.

``torch.distributed`` sends every collective through the dispatcher; these kernels take the calls
for the device ``hpu``. Outside a graph a collective starts at once and its handle completes it.
While an HPU graph is captured it runs as one operator of the graph, which a replay repeats; on
the card that needs PT_HPU_ENABLE_LAZY_COLLECTIVES, and so it does here.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
from torch.distributed import DistBackendError, ProcessGroup, ProcessGroupGloo, ReduceOp

from habana_frameworks.torch._device import (
    CollectiveCost,
    CollectiveWork,
    fault_point,
    host_view,
    is_capturing,
    lazy_graphs,
)
from habana_frameworks.torch._ops.library import device_kernel
from habana_frameworks.torch.internal import bridge_config

from . import faults, transport, work
from .backend import peers_of
from .peers import Peers
from .transport import Pending

__all__: list[str] = []

Transfer = Callable[[ProcessGroupGloo, Sequence[torch.Tensor], Sequence[torch.Tensor]], Pending]

_HPU = torch.device("hpu")
_LIBRARY = torch.library.Library("c10d", "IMPL")
_captured: list[tuple[Transfer, ProcessGroupGloo, Peers]] = []


@device_kernel("collective(Tensor(a!)[] written, Tensor[] read, int call) -> ()")
def _run_captured(written: list[torch.Tensor], read: list[torch.Tensor], call: int) -> None:
    """One collective of a captured graph, over host tensors."""
    transfer, backend, peers = _captured[call]
    _start(transfer, backend, peers, written, read).wait()


def _start(
    transfer: Transfer,
    backend: ProcessGroupGloo,
    peers: Peers,
    written: Sequence[torch.Tensor],
    read: Sequence[torch.Tensor],
) -> CollectiveWork:
    """Start a collective on host tensors.

    Raises:
        DistBackendError: a rank of the group has died.
    """
    if peers.death():
        raise DistBackendError(peers.death())
    fault = fault_point("collective")
    try:
        pending = transfer(backend, written, read)
    except RuntimeError as error:  # the transport may notice a death first
        raise DistBackendError(peers.explain(str(error))) from error
    return work.start(faults.spoilt(pending, written, fault), peers)


def _launch(
    process_group, transfer: Transfer, written: Sequence[torch.Tensor], read: Sequence[torch.Tensor]
):
    """Start a collective on device tensors; returns the boxed handle."""
    group = ProcessGroup.unbox(process_group)
    backend, peers = group._get_backend(_HPU), peers_of(group)
    cost = CollectiveCost(transfer.__qualname__.partition(".")[0], backend.size())
    if not is_capturing():
        lazy_graphs.cut()
        cost.tell(written, read)
        views = [host_view(t, written=True) for t in written], [host_view(t) for t in read]
        return _start(transfer, backend, peers, *views).boxed()
    if not bridge_config.get_pt_hpu_enable_lazy_collectives():
        raise RuntimeError(
            "a collective inside an HPU graph needs PT_HPU_ENABLE_LAZY_COLLECTIVES=true in the "
            "environment before the bridge is imported"
        )
    cost.note_captured(len(_captured))
    _captured.append((transfer, backend, peers))
    _run_captured(list(written), list(read), len(_captured) - 1)
    done = CollectiveWork()
    done.complete()
    return done.boxed()


def _reduction(op) -> ReduceOp.RedOpType:
    """The kind of reduction; the boxed operator hands it out as its number."""
    return ReduceOp.RedOpType(op.op())


def _kernel(name: str):
    def register(function: Callable) -> Callable:
        _LIBRARY.impl(name, function, "HPU")
        return function

    return register


@_kernel("broadcast_")
def _broadcast(tensors, group, root_rank, root_tensor, async_op=True, timeout=-1):
    return tensors, _launch(group, transport.broadcast(root_rank), tensors, [])


@_kernel("allreduce_")
def _allreduce(tensors, group, op, sparse_indices, async_op=True, timeout=-1):
    return tensors, _launch(group, transport.all_reduce(_reduction(op)), tensors, [])


@_kernel("allreduce_coalesced_")
def _allreduce_coalesced(tensors, group, op, async_op=True, timeout=-1):
    return _launch(group, transport.all_reduce(_reduction(op)), tensors, [])


@_kernel("reduce_")
def _reduce(tensors, group, op, root_rank, root_tensor, async_op=True, timeout=-1):
    return _launch(group, transport.reduce(_reduction(op), root_rank), tensors, [])


@_kernel("allgather_")
def _allgather(outputs, inputs, group, async_op=True, timeout=-1):
    return outputs, _launch(group, transport.all_gather, outputs[0], inputs)


@_kernel("_allgather_base_")
def _allgather_base(output, tensor, group, async_op=True, timeout=-1):
    return output, _launch(group, transport.all_gather_into, [output], [tensor])


@_kernel("allgather_coalesced_")
def _allgather_coalesced(outputs, inputs, group, async_op=True):
    of_all_ranks = [tensor for of_one_rank in outputs for tensor in of_one_rank]
    return _launch(group, transport.all_gather_coalesced, of_all_ranks, inputs)


@_kernel("allgather_into_tensor_coalesced_")
def _allgather_into_coalesced(outputs, inputs, group, async_op=True):
    return _launch(group, transport.all_gather_into, outputs, inputs)


@_kernel("reduce_scatter_")
def _reduce_scatter(outputs, inputs, group, op, async_op=True, timeout=-1):
    work = _launch(group, transport.reduce_scatter(_reduction(op)), outputs, inputs[0])
    return outputs, work


@_kernel("_reduce_scatter_base_")
def _reduce_scatter_base(output, tensor, group, op, async_op=True, timeout=-1):
    return output, _launch(group, transport.reduce_scatter(_reduction(op)), [output], [tensor])


@_kernel("reduce_scatter_tensor_coalesced_")
def _reduce_scatter_coalesced(outputs, inputs, group, op, async_op=True, timeout=-1):
    return _launch(group, transport.reduce_scatter_coalesced(_reduction(op)), outputs, inputs)


@_kernel("gather_")
def _gather(outputs, inputs, group, root_rank, async_op=True, timeout=-1):
    return _launch(group, transport.gather(root_rank), outputs[0] if outputs else [], inputs)


@_kernel("scatter_")
def _scatter(outputs, inputs, group, root_rank, async_op=True, timeout=-1):
    work = _launch(group, transport.scatter(root_rank), outputs, inputs[0] if inputs else [])
    return outputs, work


@_kernel("alltoall_base_")
def _alltoall_base(output, tensor, group, output_splits, input_splits, async_op=True, timeout=-1):
    transfer = transport.all_to_all_single(list(output_splits), list(input_splits))
    return _launch(group, transfer, [output], [tensor])


@_kernel("alltoall_")
def _alltoall(outputs, inputs, group, async_op=True, timeout=-1):
    return outputs, _launch(group, transport.all_to_all, outputs, inputs)


@_kernel("send")
def _send(tensors, group, peer, tag):
    return _launch(group, transport.send(peer, tag), [], tensors)


@_kernel("recv_")
def _recv(tensors, group, peer, tag):
    return _launch(group, transport.receive(peer, tag), tensors, [])


@_kernel("recv_any_source_")
def _recv_any_source(tensors, group, tag):
    return _launch(group, transport.receive(None, tag), tensors, [])


@_kernel("barrier")
def _barrier(tensor, group, device_ids, async_op=True, timeout=-1):
    return _launch(group, transport.barrier, [], [tensor])


@_kernel("monitored_barrier_")
def _monitored_barrier(tensor, group, device_ids, timeout, wait_all_ranks):
    backend = ProcessGroup.unbox(group)._get_backend(_HPU)
    backend.monitored_barrier(timedelta(milliseconds=timeout), wait_all_ranks)
