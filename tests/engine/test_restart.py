"""Starts with a recipe cache: resumed after kill -9, nothing compiled twice, bad caches ignored.

All counts are the device's.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engine.nursery import Ended, Nursery

# Long enough that a start is killed within a compilation as often as between two.
SLOW = {"GAUDI_EMULATOR_COMPILE_SECONDS": "0.02"}
KILLS, KILLS_IN_A_ROW = 20, 4


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Nursery:
    return Nursery(tmp_path_factory.mktemp("starts"))


@dataclass
class Whole:
    """A start that nothing disturbed, and the cache it left."""

    mode: str
    ended: Ended
    recipes: Path

    @property
    def result(self) -> dict[str, Any]:
        return self.ended.result


@pytest.fixture(scope="module", params=(pytest.param("compile", marks=pytest.mark.slow), "graphs"))
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, KILLS // KILLS_IN_A_ROW + 1))
def test_killed_at_20_moments(nursery: Nursery, whole: Whole, tmp_path: Path, seed: int) -> None:
    kill_and_resume(nursery, whole, tmp_path / "recipes", KILLS_IN_A_ROW, seed)


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


@pytest.mark.slow
def test_without_warm_up_requests_compile(nursery: Nursery, whole: Whole, tmp_path: Path) -> None:
    started = nursery.run(whole.mode, tmp_path / "recipes", VLLM_SKIP_WARMUP="1")
    assert started.result["progress"] is None
    assert started.result["compilations"] < whole.result["compilations"] / 2
    assert started.result["later"] > 0
    assert started.result["tokens"] == whole.result["tokens"]
    assert len(started.lines("VLLM_SKIP_WARMUP is set")) == 1


def _damage_all_recipes(recipes: Path) -> None:
    draw = random.Random(7)
    for path in recipes.glob("*.recipe"):
        path.write_bytes(draw.randbytes(100))


def _damage_manifest(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(recipes: Path) -> None:
        path = manifest(recipes)
        path.write_bytes(change(path.read_bytes()))

    return damage


def _other(**fields: object) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(json.loads(content) | fields).encode()


def _folder_for_manifest(recipes: Path) -> None:
    path = manifest(recipes)
    path.unlink()
    (path / "something").mkdir(parents=True)


def _folder_for_recipe(recipes: Path) -> None:
    path = min(recipes.glob("*.recipe"))
    path.unlink()
    path.mkdir()


def _other_version(recipes: Path) -> None:
    for path in recipes.glob("*.recipe"):
        path.write_bytes(path.read_bytes().replace(b"recipe 1\n", b"recipe 2\n", 1))


# What is done to the cache, and how many recipes are lost by it (None: all).
BAD: dict[str, tuple[Callable[[Path], None], int | None]] = {
    "random manifest": (_damage_manifest(lambda _: random.Random(5).randbytes(500)), 0),
    "truncated manifest": (_damage_manifest(lambda content: content[: len(content) // 2]), 0),
    "foreign manifest": (_damage_manifest(_other(fingerprint="f" * 16)), 0),
    "other version of the manifest": (_damage_manifest(_other(format=99)), 0),
    "random recipes": (_damage_all_recipes, None),
    "other version of the recipes": (_other_version, None),
    "folder for a recipe": (_folder_for_recipe, 1),
    "folder for the manifest": (_folder_for_manifest, 1),
}


@pytest.mark.slow
def test_a_bad_cache_is_ignored_with_one_line(
    nursery: Nursery, whole: Whole, tmp_path: Path
) -> None:
    """One after the other in the same folder: each start finds what the one before has mended."""
    recipes = shutil.copytree(whole.recipes, tmp_path / "recipes")
    for what, (damage, lost) in BAD.items():
        damage(recipes)
        started = nursery.run(whole.mode, recipes)
        check_result(started, whole)
        lines = started.lines("Ignored the")
        # The folder in a recipe's place is still there when the last one begins.
        expected = 2 if what == "folder for the manifest" else 1
        assert len(lines) == len(started.lines(str(recipes))) == expected, (what, lines)
        compiled = whole.result["compilations"] if lost is None else lost
        assert started.result["compilations"] == compiled, what
        if "folder" not in what:
            check_cache(recipes, whole)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["/proc/recipes", "file/recipes"])
def test_a_folder_that_cannot_be_written_costs_one_line(
    where: str, nursery: Nursery, whole: Whole, tmp_path: Path
) -> None:
    """One of the plugin, and one of the bridge, which keeps its recipes there."""
    (tmp_path / "file").write_text("")
    recipes = tmp_path / where
    started = nursery.run(whole.mode, recipes)
    check_result(started, whole)
    assert started.result["compilations"] == whole.result["compilations"]
    lines = started.lines("WARNING", str(recipes))
    assert len([line for line in lines if "manifest" in line]) == 1
    assert len(started.lines("Recipes are no longer kept", str(recipes))) == 1


@pytest.mark.slow
def test_a_spent_budget_makes_a_smaller_plan(
    nursery: Nursery, whole: Whole, tmp_path: Path
) -> None:
    """Without room for more than the covering set; one line says so, and requests are answered."""
    for name in ("hpu_warmup_bytes", "hpu_warmup_seconds"):
        small = nursery.run(whole.mode, tmp_path / name, {"additional_config": {name: 0}})
        progress = small.result["progress"]
        assert progress["finished"]
        assert 0 < progress["compiled"] < progress["planned"]
        assert progress["dropped"] == progress["planned"] - progress["compiled"]
        [line] = small.lines("Warm-up ends with")
        assert f"--{name.replace('_', '-')} 0 is used up" in line
        assert small.result["tokens"] == whole.result["tokens"]
        assert small.result["later"] == 0


@pytest.mark.slow
def test_ranks_share_what_they_compile(nursery: Nursery, whole: Whole, tmp_path: Path) -> None:
    """Two cards compile what one does, each recipe once, and a restart compiles none."""
    two = {"tensor_parallel_size": 2}
    environment = {"GAUDI_EMULATOR_CARDS": "2", **SLOW}
    first = nursery.run(whole.mode, tmp_path / "recipes", two, **environment)
    ranks = first.result["ranks"]
    assert len(ranks) == 2
    assert sum(ranks) == len(names(tmp_path / "recipes")) == whole.result["compilations"]
    again = nursery.run(whole.mode, tmp_path / "recipes", two, **environment)
    assert again.result["ranks"] == [0, 0]
    assert again.result["tokens"] == first.result["tokens"] == whole.result["tokens"]
    assert not again.lines("Ignored")
