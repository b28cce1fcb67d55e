"""Start `vllm serve` as a user does and wait until it answers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 300


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A server that answers.

    Attributes:
        url: its base URL, e.g. http://127.0.0.1:1.
        process: the process that was started, the first of its process group.
    """

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def serve(model: str, *flags: str, log: Path, **environment: str) -> Iterator[str]:
    """Run ``vllm serve MODEL FLAGS`` on loopback; yields its base URL."""
    with start_server(model, *flags, log=log, **environment) as server:
        yield server.url


@contextmanager
def start_server(model: str, *flags: str, log: Path, **environment: str) -> Iterator[Server]:
    """The same, with its process. A server that has ended by then is no error."""
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("vllm")),
        "serve",
        model,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        *flags,
    ]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | environment,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, process, log)
            yield Server(url, process)
        finally:
            signal_group(process.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            # Also what the server has left behind.
            signal_group(process.pid, signal.SIGKILL)
            process.wait()


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group that may be gone."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"The server ended with {process.returncode}:\n{tail(log)}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise TimeoutError(f"The server did not answer in {START_SECONDS} s:\n{tail(log)}")


def tail(log: Path, lines: int = 60) -> str:
    return "\n".join(log.read_text().splitlines()[-lines:])
