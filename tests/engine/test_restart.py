"""Starts with a recipe cache: resumed after kill -9, nothing compiled twice.

All counts are the device's.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engine.nursery import Ended, Nursery

# Long enough that a start is killed within a compilation as often as between two.
SLOW = {"GAUDI_EMULATOR_COMPILE_SECONDS": "0.02"}


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("starts")) as found:
        yield found


@dataclass
class Whole:
    """A start that nothing disturbed, and the cache it left."""

    mode: str
    ended: Ended
    recipes: Path

    @property
    def result(self) -> dict[str, Any]:
        return self.ended.result


@pytest.fixture(scope="module", params=("graphs",))
def whole(
    request: pytest.FixtureRequest, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Whole:
    recipes = tmp_path_factory.mktemp("whole") / "recipes"
    return Whole(request.param, nursery.run(request.param, recipes), recipes)


def names(recipes: Path) -> set[str]:
    return {path.name for path in recipes.glob("*.recipe")}


def manifest(recipes: Path) -> Path:
    [path] = recipes.glob("vllm_hpu-*.json")
    return path


def check_cache(recipes: Path, whole: Whole) -> None:
    """``recipes`` is what the undisturbed start left: the same recipes, graphs and name."""
    assert names(recipes) == names(whole.recipes)
    found = json.loads(manifest(recipes).read_text())
    expected = json.loads(manifest(whole.recipes).read_text())
    assert manifest(recipes).name == manifest(whole.recipes).name
    assert set(found["graphs"]) == set(expected["graphs"]) == set(whole.result["plan"])


def check_result(ended: Ended, whole: Whole) -> None:
    """The engine is the one that the undisturbed start made."""
    assert ended.result["plan"] == whole.result["plan"]
    assert ended.result["tokens"] == whole.result["tokens"]
    assert ended.result["later"] == 0
    progress = ended.result["progress"]
    assert progress["finished"]
    assert progress["compiled"] + progress["cached"] == progress["planned"] > 0


def kill_during_warm_up(
    nursery: Nursery, mode: str, recipes: Path, known: int, delay: float
) -> None:
    """Start, and kill -9 ``delay`` seconds after the cache holds ``known`` recipes."""
    process = nursery.start(mode, recipes, {}, **SLOW)
    deadline = time.monotonic() + 240
    while len(names(recipes)) < known:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(process, signal.SIGKILL)
    ended = nursery.end()
    assert ended.code == -signal.SIGKILL, ended.log[-3000:]
    assert not ended.lines("Ignored")


def kill_and_resume(nursery: Nursery, whole: Whole, recipes: Path, kills: int, seed: int) -> None:
    """Kill ``kills`` starts one after the other; the next one does what they left undone."""
    draw, total = random.Random(seed), whole.result["compilations"]
    # Not the last one: the start might end before it is killed.
    moments = sorted(draw.randint(1, total - 2) for _ in range(kills))
    for known in moments:
        before = names(recipes)
        kill_during_warm_up(nursery, whole.mode, recipes, known, draw.uniform(0, 0.03))
        assert names(recipes) >= before
    finished = len(names(recipes))
    assert finished >= 1
    resumed = nursery.run(whole.mode, recipes)
    assert resumed.result["compilations"] == total - finished
    assert resumed.result["from_disk"] == finished
    assert not resumed.lines("Ignored")
    check_result(resumed, whole)
    check_cache(recipes, whole)


def test_a_killed_warm_up_is_resumed(nursery: Nursery, whole: Whole, tmp_path: Path) -> None:
    kill_and_resume(nursery, whole, tmp_path / "recipes", 1, seed=0)


def test_a_restart_compiles_nothing(nursery: Nursery, whole: Whole, tmp_path: Path) -> None:
    assert whole.result["compilations"] == len(names(whole.recipes))
    assert whole.result["progress"]["compiled"] > 0
    recipes = shutil.copytree(whole.recipes, tmp_path / "recipes")
    again = nursery.run(whole.mode, recipes)
    assert again.result["compilations"] == 0
    assert again.result["from_disk"] == len(names(recipes))
    assert again.result["progress"]["cached"] == again.result["progress"]["planned"]
    assert not again.lines("Ignored")
    check_result(again, whole)
    check_cache(recipes, whole)
