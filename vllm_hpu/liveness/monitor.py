"""The API server's part: it looks at the engine's signs of life and ends an engine that hangs."""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from contextlib import suppress
from typing import Any

import psutil
from vllm.logger import init_logger
from vllm.v1.engine.exceptions import EngineDeadError

from vllm_hpu.liveness.pulse import BEAT_SECONDS, Signs, read, role_of
from vllm_hpu.liveness.watch import ENGINE, Watch

logger = init_logger("vllm.plugins.vllm_hpu.liveness")

LOOK_SECONDS = 2 * BEAT_SECONDS
_TELL_SECONDS = 2.0


class EngineHangError(EngineDeadError):
    """The engine does not go on. Its text is the one that clients get."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def __str__(self) -> str:
        return self._text


def start(engine: Any, folder: str, limit: float) -> None:
    """Watch the engine of an ``AsyncLLM`` as long as that is there and works.

    Args:
        folder: where the engine's processes write; "" if it is not known.
        limit: seconds that a step may take at least; 0 to watch nothing.
    """
    if limit and os.path.isdir(folder):
        arguments = (weakref.ref(engine), folder, limit)
        threading.Thread(target=_watch, args=arguments, name="hpu-hangs", daemon=True).start()


def _watch(reference: Any, folder: str, limit: float) -> None:
    engine = reference()
    if engine is None:
        return
    watch = Watch(limit, engine.vllm_config.parallel_config.world_size)
    # Of several API servers none has started the engine; the process that has is their parent.
    own = engine.engine_core.resources.engine_manager is not None
    family = _Family(os.getpid() if own else os.getppid())
    del engine
    last = time.monotonic()
    while True:
        time.sleep(LOOK_SECONDS)
        now = time.monotonic()
        # A machine that was busy or asleep is no reason to think that the engine was not.
        passed, last = min(now - last, 2 * LOOK_SECONDS), now
        engine = reference()
        if engine is None or hasattr(engine, "hpu_stopping") or engine.errored:
            return
        signs = {role_of(file): one for file, one in read(folder).items() if one.pid in family}
        if text := watch.look(passed, signs):
            _end(engine, signs, text)
            return
        del engine


def core_has_ended(folder: str) -> bool:
    """Whether an engine core has shown signs of life in ``folder``, and none is there any more."""
    signs = read(folder) if folder else {}
    cores = [one.pid for file, one in signs.items() if role_of(file) == ENGINE]
    return bool(cores) and not any(map(_is_alive, cores))


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class _Family:
    """The processes below one."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._known: dict[int, bool] = {}

    def __contains__(self, pid: int) -> bool:
        if pid not in self._known:
            try:
                parents = psutil.Process(pid).parents()
            except psutil.NoSuchProcess:
                return False
            self._known[pid] = self._pid in {parent.pid for parent in parents}
        return self._known[pid]


def _end(engine: Any, signs: dict[str, Signs], text: str) -> None:
    """Tell everyone who waits, and end the engine's processes, which may not end by themselves."""
    logger.error(text)
    client = engine.engine_core
    client.resources.engine_dead = True  # from here on /health is 503
    handler = engine.output_handler
    if handler is not None and not handler.done():
        told = threading.Event()

        def tell() -> None:
            engine.output_processor.propagate_error(EngineHangError(text))
            told.set()

        handler.get_loop().call_soon_threadsafe(tell)
        told.wait(_TELL_SECONDS)
    for one in signs.values():
        with suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    client.shutdown(timeout=0)
