"""The verdict of benchmarks/soak.py: slopes of made-up samples, and what makes a run fail."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from benchmarks.soak import DEVICE_TOLERANCE, Run, plot, table, write_json
from benchmarks.soak_load import Replies
from benchmarks.soak_memory import MB, Sample, slope

HOUR = 3600.0


def run_of(rss_per_hour: float, device_per_hour: float = 0.0) -> Run:
    seconds = [5.0 * step for step in range(360)]
    samples = [
        Sample(at, int(500 * MB + rss_per_hour * MB * at / HOUR), 10**8, 10**8) for at in seconds
    ]
    device = [(at, 1e9 + device_per_hour * at / HOUR) for at in seconds]
    return Run("graphs", 600.0, Replies(), {"EngineCore": samples}, device)


def test_a_line_is_found_with_its_slope() -> None:
    line = slope([0, HOUR / 2, HOUR], [0, 6 * MB, 12 * MB])
    assert line.per_hour == pytest.approx(12)
    assert line.uncertainty == pytest.approx(0)


def test_the_uncertainty_covers_the_truth_in_noise_that_lasts() -> None:
    """Memory taken for a while and given back, about a true slope of 3 MB/h: 100 runs."""
    source, covered = random.Random(3), 0
    seconds = [5.0 * step for step in range(240)]
    for _ in range(100):
        noise, values = 0.0, []
        for at in seconds:
            noise = 0.8 * noise + source.gauss(0, 0.5)
            values.append((100 + 3 * at / HOUR + noise) * MB)
        line = slope(seconds, values)
        covered += abs(line.per_hour - 3) <= line.uncertainty
    assert covered >= 85


def test_a_level_run_passes() -> None:
    assert run_of(0.5).failures(5.0) == []


def test_growth_is_told_by_the_process() -> None:
    [failure] = run_of(12).failures(5.0)
    assert failure.startswith("EngineCore grows by 12.0 MB/h")


def test_growth_on_the_card_is_told() -> None:
    [failure] = run_of(0, device_per_hour=20.0 * DEVICE_TOLERANCE).failures(5.0)
    assert failure.startswith("memory in use on the card")


def test_lost_and_refused_replies_and_an_early_end_are_told() -> None:
    run = run_of(0)
    run.replies.outcomes.update(lost=2, refused=1, cancelled=9)
    run.ended = -9
    assert len(run.failures(5.0)) == 3


def test_a_run_is_written_and_drawn(tmp_path: Path) -> None:
    run = run_of(1)
    run.replies.outcomes["answered"] = 7
    write_json(run, [], tmp_path / "soak.json")
    written = json.loads((tmp_path / "soak.json").read_text())
    assert written["replies"]["outcomes"] == {"answered": 7}
    assert written["slopes_mb_per_hour"]["EngineCore"]["rss"]["per_hour"] == pytest.approx(1)
    plot(run, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 0
    assert "EngineCore" in table(run)
    assert "7 answered" in table(run)
