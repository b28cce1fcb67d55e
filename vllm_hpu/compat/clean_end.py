"""End a server so that every client hears how, and the exit code is true.

Replaces: ``AsyncLLM.shutdown`` and ``BackgroundResources.__call__`` (the originals are called), and
``serve_http`` as ``vllm.entrypoints.launchers.api_server.entry`` calls it.
Reason: vLLM stops the task that hands out answers without a word to those who wait for one. Their
connections stay open, and the server waits for them until something kills it. What comes in
while requests are finished fails with an error of the server (500), and a server whose engine died
or was killed ends with exit code 0.
Unnecessary when: a stream that is open as ``AsyncLLM.shutdown`` is called gets an error, and
``vllm serve`` has an exit code other than 0 after its engine was killed.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

DRAIN_SECONDS = 30
"""Default of ``--shutdown-timeout``: how long running requests may take to finish."""
CONNECTION_SECONDS = 5
"""How long a connection may stay open after its last answer or error was handed over."""
_SERVER = "vllm.entrypoints.launchers.api_server.entry"
_FLUSH_SECONDS = 1.0  # for answers on their way from an engine that has ended
_MARGIN_SECONDS = 3.0  # before another process ends this one
_PAUSE_SECONDS = 0.02


def set_default(parser: Any) -> None:
    """Let ``--shutdown-timeout`` be ``DRAIN_SECONDS`` where it is not given."""
    parser.set_defaults(shutdown_timeout=DRAIN_SECONDS)


@functools.cache  # once per process
def install() -> None:
    """Replace the three names. Raises ImportError if they are not the known ones."""
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.core_client import BackgroundResources

    from vllm_hpu import vllm_seams as seams

    seams.check(seams.SHUTDOWN_SEAMS)
    shutdown = AsyncLLM.shutdown
    close = BackgroundResources.__call__

    @functools.wraps(shutdown)
    def shutdown_engine(self: Any, timeout: float | None = None) -> None:
        if getattr(self, "engine_core", None) is not None and not is_stopping(self):
            self.hpu_stopping = not self.errored
            self.engine_core.resources.hpu_before_close = functools.partial(
                _answer_all, self, timeout
            )
        shutdown(self, timeout=timeout)

    @functools.wraps(close)
    def close_resources(self: Any) -> None:
        before = self.__dict__.pop("hpu_before_close", None)
        if before is not None:
            before()
        close(self)

    replaced: Any = AsyncLLM
    replaced.shutdown = shutdown_engine
    replaced = BackgroundResources
    replaced.__call__ = close_resources


def install_in_server() -> None:
    """Replace what the API server calls, in a process that is one."""
    if _SERVER in sys.modules:
        _install_in_server()


@functools.cache  # once per process
def _install_in_server() -> None:
    from vllm.entrypoints.launchers.api_server import entry

    from vllm_hpu import vllm_seams as seams

    seams.check(seams.SERVER_SEAMS)
    serve = entry.serve_http

    @functools.wraps(serve)
    async def serve_http(app: Any, *args: Any, **options: Any) -> Any:
        engine = app.state.engine_client
        if engine is None:
            return await serve(app, *args, **options)
        options.setdefault("timeout_graceful_shutdown", CONNECTION_SECONDS)
        # By now it is too late for app.add_middleware.
        inner = app.middleware_stack or app.build_middleware_stack()
        app.middleware_stack = RefusesWhileStopping(inner, engine)
        return _end(await serve(app, *args, **options), engine)

    replaced: Any = entry
    replaced.serve_http = serve_http


def is_stopping(engine: Any) -> bool:
    """Whether this ``AsyncLLM`` has been told to shut down."""
    return hasattr(engine, "hpu_stopping")


def exit_code(engine: Any) -> int:
    """0 if the engine was asked to end while it worked, and all of its processes did."""
    if not getattr(engine, "hpu_stopping", False):
        return 1 if engine.errored else 0
    manager = engine.engine_core.resources.engine_manager
    codes = manager.finished_procs().values() if hasattr(manager, "finished_procs") else ()
    return 1 if any(codes) else 0


async def _end(closing: Coroutine[Any, Any, None], engine: Any) -> None:
    await closing
    if code := exit_code(engine):
        raise SystemExit(code)


def _answer_all(engine: Any, timeout: float | None) -> None:
    """Before the channel to the engine closes: hand out what has come, and end the rest.

    Where other processes manage the engine, it is still at work.
    """
    from vllm.utils.async_utils import in_loop
    from vllm.v1.engine.exceptions import EngineDeadError

    from vllm_hpu.liveness.monitor import core_has_ended
    from vllm_hpu.settings import metrics_folder

    processor, handler = engine.output_processor, getattr(engine, "output_handler", None)
    if handler is None or handler.done():
        return
    loop = handler.get_loop()
    if loop.is_closed() or in_loop(loop):
        # Nobody can be waited for, and nothing is handed out any more.
        processor.propagate_error(EngineDeadError())
        return
    if engine.engine_core.resources.engine_manager is None:
        folder, _ = metrics_folder()
        _wait_until(
            lambda: not processor.get_num_unfinished_requests() or core_has_ended(folder),
            (timeout or 0) - _MARGIN_SECONDS,
        )
    _wait_until(lambda: not processor.get_num_unfinished_requests(), _FLUSH_SECONDS)
    told = threading.Event()

    def tell() -> None:
        processor.propagate_error(EngineDeadError())
        told.set()

    loop.call_soon_threadsafe(tell)
    told.wait(_FLUSH_SECONDS)


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)


class RefusesWhileStopping:
    """ASGI middleware: 503 for whatever comes while running requests are finished.

    That includes ``/health``, so that a load balancer looks for another server; metrics are shown.
    """

    def __init__(self, app: Any, engine: Any) -> None:
        self._app = app
        self._engine = engine

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        shown = scope["type"] != "http" or scope["path"].startswith("/metrics")
        if shown or not is_stopping(self._engine):
            await self._app(scope, receive, send)
            return
        from starlette.responses import JSONResponse
        from vllm.entrypoints.serve.exception_handling.error_response import create_error_response

        status = HTTPStatus.SERVICE_UNAVAILABLE
        error = create_error_response(
            "This server is shutting down and takes no new requests. Send it to another one.",
            "ServiceUnavailableError",
            status,
        )
        close = {"Connection": "close"}
        answer = JSONResponse(error.model_dump(), status_code=status.value, headers=close)
        await answer(scope, receive, send)
