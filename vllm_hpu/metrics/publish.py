"""The front end's part: what the workers write appears among vLLM's own metrics."""

import atexit
import functools
import multiprocessing
import os
import shutil
import tempfile

from vllm_hpu.settings import metrics_folder, use_metrics_folder


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
        folder = tempfile.mkdtemp(prefix="vllm-hpu-metrics-")
        atexit.register(_remove, folder, os.getpid())
        use_metrics_folder(folder)
    if os.path.isdir(folder):
        MultiProcessCollector(REGISTRY, folder)


def _remove(folder: str, owner: int) -> None:
    """Remove ``folder`` at the end of the process that made it, not of one forked from it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
