"""Is every other rank of a group alive?

The ranks of one host keep a socket to each other. The kernel closes it at the moment a process
ends, however it ends; one that leaves in order says so before. A transport alone does not tell:
gloo fails only where the dead rank is the next to send, and the others wait for its timeout.
"""

import atexit
import contextlib
import json
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing import util
from typing import NamedTuple

import torch.distributed as dist

from habana_frameworks.torch._device import close_transfers

__all__ = ["Peers"]

logger = logging.getLogger("habana_frameworks.hccl")

_LEAVING = b"L"
_GRACE_S = 0.2  # for what the dead rank has sent already
_NAMING_S = 1.0  # from a transport's error until its cause is known here
_STOP_S = 5.0


class _Process(NamedTuple):
    """A rank's process, as the group's store shows it."""

    rank: int  # of the whole job
    pid: int
    host: str  # equal where sockets of this kind connect
    address: str


def _host() -> str:
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/net')}"
    return socket.gethostname()


class Peers:
    """The other ranks of a group on this host, watched by a thread; ranks elsewhere are not.

    Args:
        store: the group's; every rank leaves the address of its socket there.
        rank: this process in the group.
        size: ranks of the group.
        job_ranks: their numbers in the whole job, for messages.
        in_use: whether the group still exists in this process.
    """

    def __init__(
        self,
        store: dist.Store,
        rank: int,
        size: int,
        job_ranks: list[int],
        in_use: Callable[[], bool],
    ) -> None:
        self._in_use = in_use
        # Kept here, since the transport must not be destroyed by a thread of its own.
        self.transport: dist.ProcessGroupGloo | None = None
        self._lock = threading.Lock()
        self._death = ""
        self._waiting: set[Callable[[str], None]] = set()
        self._noticed = threading.Event()
        self._sockets: dict[socket.socket, _Process] = {}
        self._stop_here, self._stopped_there = socket.socketpair()
        self._watcher: threading.Thread | None = None
        if size > 1:
            self._connect(store, rank, size, job_ranks)
            _watched.append(self)
            self._watcher = threading.Thread(target=self._watch, name="hccl-peers", daemon=True)
            self._watcher.start()

    def _connect(self, store: dist.Store, rank: int, size: int, job_ranks: list[int]) -> None:
        # A name in Linux's abstract space: no file, no port, this host only.
        address = f"hccl-{os.getpid()}-{os.urandom(8).hex()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(f"\0{address}")
            listener.listen(size)
            me = _Process(job_ranks[rank], os.getpid(), _host(), address)
            store.set(f"hccl-peers/{rank}", json.dumps(me))
            everyone = [
                _Process(*json.loads(store.get(f"hccl-peers/{peer}"))) for peer in range(size)
            ]
            near = [peer for peer in range(size) if everyone[peer].host == me.host]
            for peer in near:
                if peer < rank:
                    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                    link.connect(f"\0{everyone[peer].address}")
                    link.sendall(rank.to_bytes(4, "little"))
                    self._sockets[link] = everyone[peer]
            for _ in [peer for peer in near if peer > rank]:
                link, _ = listener.accept()
                self._sockets[link] = everyone[int.from_bytes(link.recv(4), "little")]

    def _watch(self) -> None:
        waiting = select.poll()
        by_number = {link.fileno(): link for link in self._sockets}
        for number in by_number:
            waiting.register(number, select.POLLIN)
        stop = self._stopped_there.fileno()
        waiting.register(stop, select.POLLIN)
        while by_number:
            for number, _ in waiting.poll():
                if number == stop:
                    return
                link = by_number.pop(number)
                waiting.unregister(number)
                try:
                    left = link.recv(1) == _LEAVING
                except OSError:
                    left = False
                if not left and self._in_use():
                    self._report(self._sockets[link])

    def _report(self, dead: _Process) -> None:
        text = (
            f"hccl: rank {dead.rank} (process {dead.pid}) has died. Collectives with it cannot "
            "complete; find the cause in its log and start all ranks again"
        )
        with self._lock:
            if self._death:
                return
            self._death = text
        logger.error("%s", text)
        self._noticed.set()
        time.sleep(_GRACE_S)
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        for fail in waiting:
            fail(text)

    def leave(self) -> None:
        """Tell the others that this process ends in order."""
        for link in self._sockets:
            with contextlib.suppress(OSError):
                link.sendall(_LEAVING)

    def stop(self) -> None:
        """End the watch, and wait for its thread."""
        self._stop_here.close()
        if self._watcher is not None:
            self._watcher.join(_STOP_S)
            _watched.remove(self)

    def forget(self) -> None:
        """Close this process's ends: a forked child must not look like the rank itself."""
        for link in self._sockets:
            link.close()

    def death(self) -> str:
        """Which rank of the group has died, as a sentence; "" if all live."""
        return self._death

    def explain(self, error: str) -> str:
        """The death behind a transport's error, if there is one; else the error's own text."""
        return self._death if self._noticed.wait(_NAMING_S) else error

    def call_on_death(self, fail: Callable[[str], None]) -> None:
        """Call ``fail`` with the sentence of `death`, shortly after a rank dies."""
        with self._lock:
            if not self._death:
                self._waiting.add(fail)
                return
        fail(self._death)

    def forget_call(self, fail: Callable[[str], None]) -> None:
        """Take `call_on_death` back."""
        with self._lock:
            self._waiting.discard(fail)


_watched: list[Peers] = []


@atexit.register
def _leave_all() -> None:
    """End what works in threads, before the interpreter ends under it."""
    for peers in _watched:
        peers.leave()
    for peers in list(_watched):
        peers.stop()
    close_transfers()


def _forget_all() -> None:
    for peers in _watched:
        peers.forget()
    _watched.clear()


# Processes of multiprocessing end without atexit.
util.Finalize(None, _leave_all, exitpriority=0)
os.register_at_fork(after_in_child=_forget_all)
