"""Registration of ``hccl`` with ``torch.distributed``.

The cards of the emulator keep their memory on the host, so their network is the host's: the
transport is gloo. A group's backend for ``hpu`` is therefore a gloo backend of its own, with its
own connections; :mod:`.collectives` gives it views of device memory, without copies.
"""

import os
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import ProcessGroup, ProcessGroupGloo

from .peers import Peers

__all__ = ["peers_of", "register"]

_peers: dict[str, Peers] = {}


def peers_of(group: ProcessGroup) -> Peers:
    """Who watches the ranks of a group."""
    return _peers[group.group_name]


def _create(options: dist.distributed_c10d._DistributedBackendOptions, _: object):
    """The backend of one group: its transport, and the watch over its ranks."""
    rank, size = options.group_rank, options.group_size
    job_ranks = list(options.global_ranks_in_group) or list(range(size))
    name = options.group_id
    names = dist.distributed_c10d._world.pg_names
    for earlier in set(_peers).difference(set(names.values()) - {name}):  # those destroyed
        peers = _peers.pop(earlier)
        peers.leave()
        peers.stop()
    _peers[name] = Peers(options.store, rank, size, job_ranks, lambda: name in names.values())
    transport = _transport(options.store, rank, size, options.timeout)
    _peers[name].transport = transport
    return transport


def _transport(store: dist.Store, rank: int, size: int, timeout: timedelta) -> ProcessGroupGloo:
    """The transport of one group.

    ``HCCL_SOCKET_IFNAME`` names the network interface, as for Intel's HCCL; without it gloo's own
    choice (``GLOO_SOCKET_IFNAME``, else the host's name) applies.
    """
    interface = os.environ.get("HCCL_SOCKET_IFNAME")
    if not interface:
        return ProcessGroupGloo(store, rank, size, timeout=timeout)
    options = ProcessGroupGloo._Options()
    options._devices = [ProcessGroupGloo.create_device(interface=interface)]
    options._timeout = timeout
    options._threads = 2
    return ProcessGroupGloo(store, rank, size, options)


def register() -> None:
    """Make ``hccl`` a backend of ``torch.distributed`` for the device ``hpu``, once."""
    if not hasattr(dist.Backend, "HCCL"):
        dist.Backend.register_backend("hccl", _create, extended_api=True, devices=["hpu"])
