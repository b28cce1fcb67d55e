"""A server is ready after few compilations; the others keep a request waiting for one at most.

Compilations and graphs are counted by the device and by the server, time is not measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.server import serve
from tests.serve.test_load import DEMO, ENVIRONMENT, EVERYTHING, FLAGS, LAZY
from tests.serve.test_metrics import Scrape, complete, wait_for

MOST_BEFORE_SERVING = 12
FEATURES = {"plain": (), "adapters": EVERYTHING[:2], "ngram": EVERYTHING[2:], "both": EVERYTHING}
GUIDED: dict[str, Any] = {
    "model": "demo",
    "prompt": [30, 31, 32],
    "max_tokens": 4,
    "structured_outputs": {"choice": ["yes", "no", "perhaps"]},
}


def environment(mode: str, seconds: float) -> dict[str, str]:
    return ENVIRONMENT | {
        "PT_HPU_LAZY_MODE": LAZY[mode],
        "GAUDI_EMULATOR_COMPILE_SECONDS": str(seconds),
    }


def ready(url: str) -> float:
    """Graphs that steps can run in."""
    return Scrape(url)("vllm:hpu_warmup_graphs", state="ready")


@pytest.mark.slow
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("mode", LAZY)
def test_first_answers_wait_for_few_compilations(mode: str, features: str, tmp_path: Path) -> None:
    """The first ones, with and without a grammar, compile nothing that warm-up has left."""
    with serve(
        str(DEMO), *FLAGS, *FEATURES[features], log=tmp_path / "log", **environment(mode, 0.1)
    ) as url:
        complete(url, [30, 31, 32], 4)
        httpx.post(f"{url}/v1/completions", json=GUIDED, timeout=120).raise_for_status()
        wait_for(lambda: Scrape(url)("vllm:hpu_warmup_finished") == 1, 300)
        scrape, name = Scrape(url), "vllm:hpu_compilations_total"
        phases = {phase: scrape(name, phase=phase) for phase in ("start", "warm_up", "serving")}
        assert phases["serving"] == 0
        assert scrape(name, phase="idle_gap") > 0
        assert 0 < sum(phases.values()) <= MOST_BEFORE_SERVING, phases


@pytest.mark.slow
@pytest.mark.parametrize("mode", LAZY)
def test_a_request_waits_for_one_graph_at_most(mode: str, tmp_path: Path) -> None:
    """It arrives while a graph is being compiled: only that one is done before its answer."""
    rounds = 0
    with serve(
        str(DEMO), *FLAGS, *EVERYTHING, log=tmp_path / "log", **environment(mode, 0.5)
    ) as url:
        while not Scrape(url)("vllm:hpu_warmup_finished") and rounds < 6:
            # A graph has just been done, so the next one takes half a second from here.
            before = ready(url)
            wait_for(lambda before=before: ready(url) > before, 120)  # type: ignore[misc]
            arrival = ready(url)
            complete(url, [40 + rounds, 41, 42], 1)
            assert ready(url) - arrival <= 1
            rounds += 1
        assert rounds == 6
        assert Scrape(url)("vllm:hpu_compilations_total", phase="serving") == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", LAZY)
def test_a_full_warm_up_leaves_nothing_to_idle_gaps(mode: str, tmp_path: Path) -> None:
    full = environment(mode, 0.05) | {"VLLM_FULL_WARMUP": "1"}
    with serve(str(DEMO), *FLAGS, log=tmp_path / "log", **full) as url:
        scrape = Scrape(url)
        assert scrape("vllm:hpu_warmup_finished") == 1
        graphs = "vllm:hpu_warmup_graphs"
        assert scrape(graphs, state="ready") == scrape(graphs, state="planned") > 0
        complete(url, [30, 31, 32], 4)
        scrape = Scrape(url)
        assert scrape("vllm:hpu_compilations_total", phase="idle_gap") == 0
        assert scrape("vllm:hpu_compilations_total", phase="serving") == 0


@pytest.mark.slow
def test_a_budget_given_as_a_flag_ends_warm_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serve(
        str(DEMO), *FLAGS, "--hpu-warmup-bytes=0", log=log, **environment("graphs", 0.05)
    ) as url:
        wait_for(lambda: Scrape(url)("vllm:hpu_warmup_finished") == 1)
        complete(url, [30, 31, 32], 4)
        assert Scrape(url)("vllm:hpu_warmup_graphs", state="dropped") > 0
        assert Scrape(url)("vllm:hpu_compilations_total", phase="serving") == 0
    [line] = [text for text in log.read_text().splitlines() if "Warm-up ends with" in text]
    assert "--hpu-warmup-bytes 0 is used up" in line
