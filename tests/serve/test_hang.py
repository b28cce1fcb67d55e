"""An engine that hangs is noticed: requests get an error with the rank, and the server ends."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.serve.server import Server, start_server
from tests.serve.test_end import END_SECONDS, ENVIRONMENT, FLAGS, Stream, child, ended, streams
from tests.serve.test_load import DEMO
from tests.serve.test_metrics import Scrape, complete, wait_for

HANG = "--hpu-hang-seconds=5"
TWO_CARDS = "--tensor-parallel-size=2"
CARDS = {"GAUDI_EMULATOR_CARDS": "2"}


class Health(threading.Thread):
    """Asks for /health until nobody answers; ``codes`` are the answers."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.codes: set[int] = set()
        self._url = url
        self.start()

    def run(self) -> None:
        with httpx.Client(timeout=5) as client:
            while True:
                try:
                    self.codes.add(client.get(f"{self._url}/health").status_code)
                except httpx.TransportError:
                    return
                time.sleep(0.02)


def check(server: Server, open_ones: list[Stream], rank: int) -> None:
    """It ends, and says which rank it was."""
    health = Health(server.url)
    code = ended(server, END_SECONDS)
    for one in open_ones:
        one.join(20)
    for one in open_ones:
        assert f"rank {rank} (process " in one.error, (one.error, one.broken)
        assert "--hpu-hang-seconds" in one.error
    assert code != 0
    health.join(20)
    assert 503 in health.codes


def test_a_stopped_engine_is_noticed(tmp_path: Path) -> None:
    with start_server(str(DEMO), *FLAGS, HANG, log=tmp_path / "log", **ENVIRONMENT) as server:
        open_ones = streams(server, 1000)
        child(server, "EngineCore").send_signal(signal.SIGSTOP)
        check(server, open_ones, 0)


def test_a_card_that_hangs_is_noticed(tmp_path: Path) -> None:
    """Its process is alive, and waits."""
    fault = {"GAUDI_EMULATOR_FAULTS": "launch:20000:hang"}
    flags = (*FLAGS, HANG)
    with start_server(str(DEMO), *flags, log=tmp_path / "log", **ENVIRONMENT, **fault) as server:
        check(server, [Stream(server.url, 1000) for _ in range(4)], 0)


def test_a_stopped_rank_is_noticed(tmp_path: Path) -> None:
    flags = (*FLAGS, HANG, TWO_CARDS)
    with start_server(str(DEMO), *flags, log=tmp_path / "log", **ENVIRONMENT, **CARDS) as server:
        open_ones = streams(server, 1000)
        child(server, "Worker_TP1").send_signal(signal.SIGSTOP)
        check(server, open_ones, 1)


@pytest.mark.slow
@pytest.mark.parametrize("skip", ["0", "1"])
@pytest.mark.parametrize("lazy", ["0", "1"])
def test_a_long_compilation_is_no_hang(lazy: str, skip: str, tmp_path: Path) -> None:
    """In idle gaps, and where a step has to wait for it; nor is a server that has nothing to do."""
    environment = ENVIRONMENT | {
        "PT_HPU_LAZY_MODE": lazy,
        "VLLM_SKIP_WARMUP": skip,
        "GAUDI_EMULATOR_COMPILE_SECONDS": "2.5",
    }
    flags = (*FLAGS[:-1], "--hpu-hang-seconds=1")
    with start_server(str(DEMO), *flags, log=tmp_path / "log", **environment) as server:
        complete(server.url, [30, 31, 32], 4)
        if skip == "0":
            compiled = "vllm:hpu_warmup_graphs"
            before = Scrape(server.url)(compiled, state="ready")
            wait_for(lambda: Scrape(server.url)(compiled, state="ready") >= before + 2)
        else:
            time.sleep(3)
        complete(server.url, [40, 41, 42], 4)
        assert httpx.get(f"{server.url}/health").status_code == 200
