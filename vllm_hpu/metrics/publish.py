"""The front end's part: what the workers write appears among vLLM's own metrics."""

import atexit
import fcntl
import functools
import multiprocessing
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from vllm_hpu.settings import metrics_folder, use_metrics_folder

_PREFIX = "vllm-hpu-metrics-"
_OWNER = "owner"


@functools.cache  # once per process
def publish() -> None:
    """Show the plugin's metrics wherever this process shows vLLM's.

    That is the endpoint /metrics and ``LLM.get_metrics``: both ask prometheus_client's registry.
    Where vLLM runs several API servers it has them read a common folder instead, and the workers
    write there, so that nothing is left to do.
    """
    from prometheus_client import REGISTRY
    from prometheus_client.multiprocess import MultiProcessCollector

    folder, shared = metrics_folder()
    if shared:
        return
    # A server started by another one inherits its environment, and has a folder of its own.
    if not folder or multiprocessing.parent_process() is None:
        sweep()
        folder = tempfile.mkdtemp(prefix=_PREFIX)
        _own(Path(folder))
        atexit.register(_remove, folder, os.getpid())
        use_metrics_folder(folder)
    if os.path.isdir(folder):
        MultiProcessCollector(REGISTRY, folder)


def _remove(folder: str, owner: int) -> None:
    """Remove ``folder`` at the end of the process that made it, not of one forked from it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove the folders of processes that were killed before they could do so.

    An owner holds a lock on a file in its folder. The kernel gives the lock back when the owner
    ends in any way, and knows it across containers, where process numbers mean nothing.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_OWNER}"):
        # Another user's, one that is going, or one whose owner is there.
        with suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)


def _own(folder: Path) -> None:
    """Hold a lock in ``folder`` until this process ends; nobody sees the file without it."""
    unseen = folder / f"{_OWNER}.new"
    descriptor = os.open(unseen, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    unseen.rename(folder / _OWNER)
