"""When silence is a hang: made-up signs of life, looked at once a second."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from vllm_hpu.liveness import pulse
from vllm_hpu.liveness.pulse import Signs
from vllm_hpu.liveness.watch import ENGINE, FACTOR, Watch

LIMIT = 30


class Engine:
    """Two ranks and their engine core, whose clocks go on unless they are stopped."""

    def __init__(self, ranks: int = 2) -> None:
        roles = [ENGINE, *(f"rank {rank}" for rank in range(ranks))]
        self.signs = {role: Signs(pid=100 + index) for index, role in enumerate(roles)}
        self.stopped: set[str] = set()

    def change(self, role: str, **fields: int) -> None:
        self.signs[role] = self.signs[role]._replace(**fields)

    def tick(self) -> dict[str, Signs]:
        for role in self.signs.keys() - self.stopped:
            self.change(role, beats=self.signs[role].beats + 2)
        return self.signs


def hang(engine: Engine, seconds: int, ranks: int = 2) -> tuple[int, str] | None:
    """After how many seconds of watching, and what is said; None if nothing is."""
    watch = Watch(LIMIT, ranks)
    for second in range(seconds):
        if text := watch.look(1.0, engine.tick()):
            return second, text
    return None


def test_an_idle_engine_is_none() -> None:
    assert hang(Engine(), 1000) is None


@pytest.mark.parametrize("role", ["rank 0", "rank 1"])
def test_a_stopped_rank_is_named(role: str) -> None:
    engine = Engine()
    engine.stopped = {role}
    found = hang(engine, 100)
    assert found is not None
    assert LIMIT <= found[0] <= LIMIT + 2
    assert f"{role} (process {engine.signs[role].pid})" in found[1]
    assert found[1].count("process") == 1


def test_a_stopped_engine_core_is_named() -> None:
    engine = Engine()
    engine.stopped = {ENGINE}
    found = hang(engine, 100)
    assert found is not None
    assert "engine core (process 100)" in found[1]


def test_a_step_that_does_not_end_names_the_ranks_in_it() -> None:
    engine = Engine()
    engine.change(ENGINE, in_step=1)
    engine.change("rank 1", in_step=1)
    found = hang(engine, 100)
    assert found is not None
    assert LIMIT <= found[0] <= LIMIT + 2
    assert "rank 1 (process 102) does not finish a step" in found[1]
    assert "rank 0" not in found[1]


def test_a_step_that_compiles_goes_on() -> None:
    engine, watch = Engine(), Watch(LIMIT, 2)
    engine.change(ENGINE, in_step=1)
    for second in range(300):
        if second % 20 == 0:
            engine.change("rank 0", compiled=engine.signs["rank 0"].compiled + 1)
        assert watch.look(1.0, engine.tick()) is None


def test_what_may_take_any_time_is_no_step() -> None:
    engine = Engine()
    engine.change(ENGINE, in_step=1)
    engine.change("rank 0", away=1)
    engine.stopped = {"rank 0"}  # a compilation may hold the interpreter
    assert hang(engine, 1000) is None


def test_the_longest_step_sets_what_is_allowed_within_bounds() -> None:
    for longest, allowed in ((1_000, LIMIT), (6_000, 60), (10**6, FACTOR * LIMIT)):
        engine = Engine()
        engine.change(ENGINE, in_step=1, longest_ms=longest)
        found = hang(engine, 1000)
        assert found is not None
        assert allowed <= found[0] <= allowed + 2


def test_steps_are_not_judged_where_a_rank_is_not_seen() -> None:
    engine = Engine(ranks=1)
    engine.change(ENGINE, in_step=1)
    assert hang(engine, 1000, ranks=2) is None


def test_signs_are_read_from_another_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, end = context.Event(), context.Event()
    process = context.Process(target=_live, args=(str(tmp_path), ready, end))
    process.start()
    assert ready.wait(60)
    [(file, before)] = pulse.read(str(tmp_path)).items()
    assert pulse.role_of(file) == "rank 3"
    assert (before.pid, before.steps, before.in_step, before.away) == (process.pid, 2, 1, 1)
    assert before.compiled == 5
    assert 20 <= before.longest_ms < 500
    time.sleep(3 * pulse.BEAT_SECONDS)
    assert pulse.read(str(tmp_path))[file].beats > before.beats
    end.set()
    process.join(60)
    assert pulse.read(str(tmp_path)) == {}


def _live(folder: str, ready, end) -> None:  # type: ignore[no-untyped-def]
    one = pulse.start(folder, "rank 3")
    with one.step():
        time.sleep(0.02)
    pulse.compiled(5)
    with one.step(), pulse.away():  # is no measure of a step
        time.sleep(0.5)
    with one.step(), pulse.away():
        ready.set()
        end.wait(60)
