"""The stat logger that records a server's traffic, on vLLM's own statistics."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vllm.config import VllmConfig
from vllm.v1.engine import FinishReason
from vllm.v1.metrics.stats import FinishedRequestStats, IterationStats, SchedulerStats

from vllm_hpu.metrics.traffic_recorder import TrafficLog
from vllm_hpu.settings import settings
from vllm_hpu.shapes.traffic import Length, Load, Traffic


@pytest.fixture
def traffic_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], TrafficLog]]:
    def made(file: Path) -> TrafficLog:
        monkeypatch.setenv("VLLM_HPU_RECORD_PROFILE", str(file))
        settings.cache_clear()
        return TrafficLog(VllmConfig())

    yield made
    monkeypatch.undo()
    settings.cache_clear()


def finished(prompt: int, answer: int, cached: int = 0) -> FinishedRequestStats:
    return FinishedRequestStats(
        FinishReason.STOP,
        num_prompt_tokens=prompt,
        num_generation_tokens=answer,
        num_cached_tokens=cached,
    )


def test_lengths_and_concurrency(tmp_path: Path, traffic_log: Callable[[Path], TrafficLog]) -> None:
    file = tmp_path / "traffic.json"
    log = traffic_log(file)
    log.log()
    assert not file.exists()  # nothing has happened
    log.record(SchedulerStats(num_running_reqs=2, num_waiting_reqs=3), IterationStats())
    ending = IterationStats()
    ending.finished_requests = [finished(10, 5), finished(12, 3, cached=8)]
    log.record(SchedulerStats(num_running_reqs=1, num_skipped_waiting_reqs=2), ending)
    log.record(SchedulerStats(num_running_reqs=3), None)
    log.record(None, None)
    log.log()
    # The two that ended were in flight in the step that ended them.
    assert Traffic.read(file) == Traffic(
        (Length(10, 5, 1, 0), Length(12, 3, 1, 8)), (Load(3, 1), Load(5, 2))
    )
    written = file.stat().st_mtime_ns
    log.log()
    assert file.stat().st_mtime_ns == written  # nothing new
    again = IterationStats()
    again.finished_requests = [finished(10, 5)]
    log.record(SchedulerStats(), again)
    log.log()
    assert Traffic.read(file).lengths[0] == Length(10, 5, 2, 0)


def test_a_flag_says_where_to_record(tmp_path: Path) -> None:
    """The front end loads the recorder as soon as an engine's configuration asks for it."""
    from vllm.v1.engine import async_llm

    file = tmp_path / "traffic.json"
    for options in ({"hpu_record_profile": str(file)}, {}):
        config = VllmConfig(additional_config=options)
        assert TrafficLog in async_llm.load_stat_logger_plugin_factories()
        log = TrafficLog(config)
        ending = IterationStats()
        ending.finished_requests = [finished(10, 5)]
        log.record(SchedulerStats(num_running_reqs=1), ending)
        log.log()
        assert file.exists() == bool(options)
        file.unlink(missing_ok=True)


def test_a_file_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, traffic_log: Callable[[Path], TrafficLog], caplog: pytest.LogCaptureFixture
) -> None:
    log = traffic_log(tmp_path / "none" / "traffic.json")
    ending = IterationStats()
    ending.finished_requests = [finished(10, 5)]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            log.record(SchedulerStats(num_running_reqs=1), ending)
            log.log()
    [message] = [record.getMessage() for record in caplog.records]
    assert "VLLM_HPU_RECORD_PROFILE" in message
    assert "none" in message
