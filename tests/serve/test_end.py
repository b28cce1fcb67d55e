"""How a server ends: what its clients hear, how long it takes, and its exit code."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.serve.server import Server, start_server
from tests.serve.test_load import DEMO

FLAGS = (
    "--served-model-name=demo",
    "--max-model-len=1024",
    "--max-num-seqs=4",
    "--max-num-batched-tokens=64",
    "--kv-cache-memory-bytes=67108864",
    "--enforce-eager",
)
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
STREAMS = 4
END_SECONDS = 60  # an idle machine needs about 5


class Stream(threading.Thread):
    """Reads a stream to its end, or sends a request without one.

    Attributes:
        chunks: how many came.
        reason: the finish reason, or "".
        error: the server's error, or "".
        broken: what the client's library says of a connection that ended early, or "".
    """

    def __init__(self, url: str, tokens: int, stream: bool = True) -> None:
        super().__init__(daemon=True)
        self.chunks, self.reason, self.error, self.broken = 0, "", "", ""
        self._url = url
        self._asked = {
            "model": "demo",
            "prompt": [30, 31, 32],
            "max_tokens": tokens,
            "ignore_eos": True,
            "stream": stream,
        }
        self.start()

    def run(self) -> None:
        try:
            with httpx.stream(
                "POST", f"{self._url}/v1/completions", json=self._asked, timeout=120
            ) as reply:
                if reply.status_code != 200 or not self._asked["stream"]:
                    content = json.loads(reply.read())
                    self._take(content)
                    return
                for line in reply.iter_lines():
                    if line.startswith("data: {"):
                        self._take(json.loads(line[6:]))
        except httpx.TransportError as error:
            self.broken = repr(error)

    def _take(self, content: dict) -> None:  # type: ignore[type-arg]
        self.chunks += 1
        if "error" in content:
            self.error = content["error"]["message"]
        else:
            self.reason = content["choices"][0]["finish_reason"] or self.reason


def streams(server: Server, tokens: int) -> list[Stream]:
    """All but one stream, and all at work."""
    found = [Stream(server.url, tokens, stream=number > 0) for number in range(STREAMS)]
    while any(one.chunks < 3 for one in found[1:]):
        time.sleep(0.05)
    return found


def child(server: Server, name: str) -> psutil.Process:
    """The server's process of that name."""
    for process in psutil.Process(server.process.pid).children(recursive=True):
        if name in " ".join(process.cmdline()):
            return process
    raise AssertionError(f"the server has no process {name}")


def ended(server: Server, seconds: float) -> int:
    """The exit code of a server that ends within ``seconds`` and leaves no process behind."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    code = server.process.wait(seconds)
    _, left = psutil.wait_procs(children, timeout=20)
    assert not left
    return code


def test_running_requests_finish_when_a_server_is_told_to_end(tmp_path: Path) -> None:
    with start_server(str(DEMO), *FLAGS, log=tmp_path / "log", **ENVIRONMENT) as server:
        open_ones = streams(server, 400)
        os.kill(server.process.pid, signal.SIGTERM)
        time.sleep(0.5)
        health = httpx.get(f"{server.url}/health", timeout=10).status_code
        late = httpx.post(f"{server.url}/v1/completions", json={"prompt": "a"}, timeout=10)
        for one in open_ones:
            one.join(60)
        assert [(one.reason, one.error, one.broken) for one in open_ones] == [
            ("length", "", "")
        ] * STREAMS
        assert health == late.status_code == 503
        assert "shutting down" in late.json()["error"]["message"]
        assert ended(server, END_SECONDS) == 0


def test_what_takes_longer_than_a_server_waits_gets_an_error(tmp_path: Path) -> None:
    flags = (*FLAGS, "--shutdown-timeout=1")
    with start_server(str(DEMO), *flags, log=tmp_path / "log", **ENVIRONMENT) as server:
        open_ones = streams(server, 1000)
        os.kill(server.process.pid, signal.SIGTERM)
        code = ended(server, END_SECONDS)
        for one in open_ones:
            one.join(20)
        assert all(one.error and not one.broken and not one.reason for one in open_ones)
        assert code != 0


def test_an_engine_that_was_killed_is_no_success(tmp_path: Path) -> None:
    with start_server(str(DEMO), *FLAGS, log=tmp_path / "log", **ENVIRONMENT) as server:
        open_ones = streams(server, 1000)
        child(server, "EngineCore").kill()
        code = ended(server, END_SECONDS)
        for one in open_ones:
            one.join(20)
        assert all(one.error and not one.broken and not one.reason for one in open_ones)
        assert code != 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_several_api_servers_end_the_same_way(number: signal.Signals, tmp_path: Path) -> None:
    flags = (*FLAGS, "--api-server-count=2")
    with start_server(str(DEMO), *flags, log=tmp_path / "log", **ENVIRONMENT) as server:
        asked_to_end = number == signal.SIGTERM
        open_ones = streams(server, 400 if asked_to_end else 1000)
        if asked_to_end:
            os.kill(server.process.pid, number)
        else:
            child(server, "EngineCore").send_signal(number)
        code = ended(server, 60)
        for one in open_ones:
            one.join(20)
        if asked_to_end:
            assert [one.reason for one in open_ones] == ["length"] * STREAMS
        else:
            assert all(one.error and not one.broken for one in open_ones)
        assert (code == 0) == asked_to_end
