"""Registration of ``hccl`` with ``torch.distributed``.

The cards of the emulator keep their memory on the host, so their network is the host's: the
transport is gloo. A group's backend for ``hpu`` is therefore a gloo backend of its own, with its
own connections; :mod:`.collectives` gives it views of device memory, without copies.
"""

import os
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import ProcessGroupGloo

__all__ = ["register"]


def _create(store: dist.Store, rank: int, size: int, timeout: timedelta) -> ProcessGroupGloo:
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
        dist.Backend.register_backend("hccl", _create, devices=["hpu"])
