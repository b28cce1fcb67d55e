"""Run Python modules in processes of their own without waiting for their imports.

Importing what vLLM imports takes longer than a tiny engine's start, so it is done once in a server,
``python -m tests.fork_server``, and every run is a fork of it. Nothing of vLLM or of the device is
imported before the fork: environment variables decide what they do.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What engines import beside vLLM.
IMPORTS = (
    "torch._functorch.aot_autograd",
    "transformers.models.llama.modeling_llama",
    "xgrammar",
    "llguidance",
    "openai.types.chat",
    "openai_harmony",
    "fastapi",
    "compressed_tensors",
    "cv2",
    "grpc",
    "opentelemetry.sdk.trace",
    "prometheus_client",
    "zmq",
    "msgspec",
    "requests",
)


class ForkServer:
    """The server and the one process at a time that it runs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server"],
            cwd=ROOT,
            # An installed device must not be loaded with PyTorch: the variables of a run decide.
            env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._pid = 0
        if self._answer(300) != "ready":
            raise RuntimeError("The fork server did not start")

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(60)

    def start(self, module: str, *arguments: str, log: Path, environment: Mapping[str, str]) -> int:
        """Begin ``python -m module arguments``; returns its process id. :meth:`end` must follow.

        Args:
            log: the file for what it prints.
            environment: all variables of the process.
        """
        request = {
            "module": module,
            "arguments": arguments,
            "log": str(log),
            "environment": dict(environment),
        }
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        self._pid = int(self._answer(60))
        return self._pid

    def end(self, timeout_s: float) -> int:
        """Wait for the end of what was started; its exit code, minus the signal if one ended it."""
        try:
            return int(self._answer(timeout_s))
        except BaseException:  # a test's own timeout, too
            self._abandon()
            raise

    def _abandon(self) -> None:
        """End the run and this server: its next answer would be about the run that is given up."""
        fork_server.cache_clear()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._process.kill()

    def run(
        self,
        module: str,
        *arguments: str,
        log: Path,
        environment: Mapping[str, str],
        timeout_s: float = 600,
    ) -> int:
        """``python -m module arguments`` to its end; returns the exit code."""
        self.start(module, *arguments, log=log, environment=environment)
        return self.end(timeout_s)

    def _answer(self, timeout_s: float) -> str:
        stream = self._process.stdout
        assert stream is not None
        if not select.select([stream], [], [], timeout_s)[0]:
            raise TimeoutError(f"No answer in {timeout_s:.0f} s")
        return stream.readline().strip()


@functools.cache
def fork_server() -> ForkServer:
    """The server of this process."""
    server = ForkServer()
    atexit.register(server.close)
    return server


def last_object(log: Path) -> str:
    """The last line of a log that is a JSON object: what a module prints as its result."""
    return [line for line in log.read_text().splitlines() if line.startswith("{")][-1]


@contextmanager
def nobody_asks_for_the_accelerator() -> Iterator[None]:
    """PyTorch keeps its first answer, and before a run has loaded the device it is "none"."""
    import torch

    answers = {"is_available": False, "current_accelerator": None, "device_count": 0}
    own = {name: getattr(torch.accelerator, name) for name in answers}
    for name, answer in answers.items():
        setattr(torch.accelerator, name, lambda *_, answer=answer, **__: answer)
    try:
        yield
    finally:
        for name, function in own.items():
            setattr(torch.accelerator, name, function)


def serve() -> None:
    """Read a request per line, answer with the process id and, in the end, the exit code."""
    with nobody_asks_for_the_accelerator():
        for name in IMPORTS:
            importlib.import_module(name)
    gc.collect()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    print("ready", file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            answers.close()
            os._exit(run(**request))
        print(child, file=answers)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers)
    os._exit(0)  # a library's last words would be about itself


def run(module: str, arguments: list[str], log: str, environment: dict[str, str]) -> int:
    """In the child: what ``python -m`` does."""
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for stream, file in ((0, nothing), (1, output), (2, output)):
        os.dup2(file, stream)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    serve()
