"""/metrics of a real server: the plugin's values against what the device and the client count."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ROOT
from tests.serve.server import serve
from vllm_hpu.engine_plan import engine_limits
from vllm_hpu.metrics.definitions import METRICS
from vllm_hpu.settings import Settings
from vllm_hpu.shapes.model import ModelShape
from vllm_hpu.shapes.plan import ShapePlan
from vllm_hpu.shapes.step import Step
from vllm_hpu.shapes.traffic import Traffic

DEMO = ROOT / "models" / "demo"
LIMITS = (
    "--served-model-name=demo",
    "--max-model-len=256",
    "--max-num-seqs=4",
    "--max-num-batched-tokens=64",
    "--kv-cache-memory-bytes=67108864",
    "--no-enable-prefix-caching",
)
PLAN = ShapePlan.from_settings(
    engine_limits(4, 64, 256, 128),
    Settings.from_env({}),
    ModelShape.from_config(json.loads((DEMO / "config.json").read_text())),
)


class Scrape:
    """The samples of one scrape."""

    def __init__(self, url: str) -> None:
        text = httpx.get(f"{url}/metrics", follow_redirects=True).raise_for_status().text
        families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples of ``name`` that have ``labels``."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, f"{name} {labels} is not on /metrics"
        return sum(found)


def rpc(url: str, method: str) -> list[Any]:
    answer = httpx.post(f"{url}/collective_rpc", json={"method": method}, timeout=60)
    results: list[Any] = answer.raise_for_status().json()["results"]
    return results


def device_compilations(url: str) -> int:
    """Asked of the device itself, in the worker."""
    [count] = rpc(url, "compilations")
    return int(count)


def complete(url: str, prompt: list[int], tokens: int) -> None:
    asked = {"model": "demo", "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
    answer = httpx.post(f"{url}/v1/completions", json=asked, timeout=120).raise_for_status()
    assert answer.json()["usage"]["completion_tokens"] == tokens


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metrics") / "traffic.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, profile: Path) -> Iterator[str]:
    """A server whose warm-up is over; methods of its workers can be called."""
    environment = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_LOG_STATS_INTERVAL": "1",
        "OMP_NUM_THREADS": "1",
    }
    log = tmp_path_factory.mktemp("metrics") / "server.log"
    record = f"--hpu-record-profile={profile}"
    with serve(str(DEMO), *LIMITS, record, log=log, **environment) as url:
        wait_for(lambda: Scrape(url)("vllm:hpu_warmup_finished") == 1)
        yield url


def test_warm_up_is_told(server: str) -> None:
    scrape = Scrape(server)
    [numbers] = rpc(server, "warm_up_progress")
    for state in ("planned", "cached", "dropped"):
        assert scrape("vllm:hpu_warmup_graphs", state=state) == numbers[state]
    ready = numbers["compiled"] + numbers["cached"]
    assert scrape("vllm:hpu_warmup_graphs", state="ready") == ready
    assert scrape("vllm:hpu_warmup_graphs", state="planned") == len(PLAN.keys) == ready
    assert scrape("vllm:hpu_warmup_seconds") == pytest.approx(numbers["seconds"])
    assert scrape("vllm:hpu_warmup_bytes") == numbers["bytes"] > 0


def test_compilations_are_those_the_device_counts(server: str) -> None:
    scrape = Scrape(server)
    name = "vllm:hpu_compilations_total"
    assert device_compilations(server) == scrape(name)
    assert scrape(name, phase="warm_up") > 0
    assert scrape(name, phase="idle_gap") > 0
    assert scrape(name, rank="0") == scrape(name, model_name="demo", engine="0") == scrape(name)
    assert scrape("vllm:hpu_compilation_seconds_total", phase="warm_up") > 0
    assert scrape("vllm:hpu_host_fallbacks_total") == 0


def test_steps_and_padding_are_those_of_the_requests(server: str) -> None:
    """One request at a time: a step for the prompt, and one for each further token."""
    before = Scrape(server)
    requests = [(list(range(20, 20 + length)), tokens) for length, tokens in ((7, 5), (40, 12))]
    for prompt, tokens in requests:
        complete(server, prompt, tokens)
    after = Scrape(server)

    steps, real, padded = 0, 0, 0
    for prompt, tokens in requests:
        rows = [Step(0, 0, 0, 1, len(prompt), 0), *[Step(1, 1, 1, 0, 0, 0)] * (tokens - 1)]
        steps += len(rows)
        real += sum(step.tokens for step in rows)
        padded += sum(PLAN.dispatch(step).tokens for step in rows)

    def more(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    assert more("vllm:hpu_steps_total") == more("vllm:hpu_steps_total", graph="planned") == steps
    assert more("vllm:hpu_steps_total", kind="decode") == steps - len(requests)
    assert more("vllm:hpu_step_tokens_total", part="real") == real
    assert more("vllm:hpu_step_tokens_total", part="padding") == padded - real
    # vLLM counts the same requests by itself.
    prompts, answers = "vllm:prompt_tokens_total", "vllm:generation_tokens_total"
    assert real == more(prompts) + more(answers) - len(requests)


def test_a_load_after_warm_up_compiles_nothing(server: str) -> None:
    before = Scrape(server)("vllm:hpu_compilations_total")
    for length in (1, 30, 100, 200):
        complete(server, list(range(30, 30 + length)), 4)
    assert device_compilations(server) == before
    scrape = Scrape(server)
    assert scrape("vllm:hpu_compilations_total") == before
    assert scrape("vllm:hpu_compilations_total", phase="serving") == 0


def test_traffic_is_recorded(server: str, profile: Path) -> None:
    """Lengths as asked (short ones are exact), one request in flight at a time."""
    prompt = list(range(40, 53))
    complete(server, prompt, 9)

    def recorded() -> bool:
        if not profile.exists():
            return False
        traffic = Traffic.read(profile)
        return (13, 9, 0) in {(n.input, n.output, n.cached) for n in traffic.lengths}

    wait_for(recorded, 20)
    assert {load.requests for load in Traffic.read(profile).concurrency} == {1}


@pytest.mark.slow
def test_several_api_servers_and_cards(tmp_path: Path) -> None:
    """vLLM then has all processes write one folder; every rank is in it, and read by either."""
    flags = ("--api-server-count=2", "--tensor-parallel-size=2", "--enforce-eager")
    environment = {"GAUDI_EMULATOR_CARDS": "2", "OMP_NUM_THREADS": "1"}
    with serve(str(DEMO), *LIMITS, *flags, log=tmp_path / "log", **environment) as url:
        complete(url, [5, 6, 7], 4)
        scrape = Scrape(url)
        assert scrape("vllm:hpu_steps_total") == 4
        assert scrape("vllm:hpu_step_tokens_total", part="real") == 3 + 3
        for rank in ("0", "1"):
            # Eager mode compiles nothing, and each card says so.
            assert scrape("vllm:hpu_compilations_total", rank=rank) == 0
        shown = {sample.name for sample in scrape.samples}
    unshown = {metric.sample for metric in METRICS} - shown
    assert all(name.startswith("vllm:hpu_warmup_") for name in unshown)  # eager: no warm-up
