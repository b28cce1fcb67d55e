"""What all tests share: a quiet, offline environment, a small card, and models made on demand."""

import logging
import os
from pathlib import Path

# Before anything imports vLLM or the bridge.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GAUDI_EMULATOR_MEMORY", "4GiB")
# Fresh memory is NaN, so that reading what nobody wrote shows.
os.environ.setdefault("GAUDI_EMULATOR_POISON", "1")
# Free memory can be in pieces, as on a card.
os.environ.setdefault("GAUDI_EMULATOR_FRAGMENTATION", "1")
# Queued work is done as late as it may be, and whoever does not wait for it is told.
os.environ.setdefault("GAUDI_EMULATOR_STREAMS", "late")
os.environ.setdefault("GAUDI_EMULATOR_CHECK_STREAMS", "raise")
if "PYTEST_XDIST_WORKER" in os.environ:
    # One process per core already.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

# How long one example takes says nothing on a machine that runs several things at once.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

ROOT = Path(__file__).resolve().parent.parent
# What takes longest is started first, so that no process is left with it at the end: groups of
# tests by their seconds on a quiet core. `pytest --durations=60` shows what belongs here.
LONGEST = (
    "tests/engine/test_greedy.py compile",
    "tests/engine/test_features.py compile",
    "tests/engine/test_load.py compile",
    "tests/engine/test_load.py graphs",
    "tests/serve/chat",
)
# Engines first, then what starts processes.
FIRST = ("tests/engine/", "tests/serve/", "tests/device/", "tests/bridge/")
# Files that share a server.
SHARED = {
    f"tests/serve/test_{name}.py": "tests/serve/chat"
    for name in ("bad_requests", "bench", "endpoints", "log", "streams")
}
# Execution modes, the slowest to warm up first.
MODES = ("compile", "graphs", "eager")


def mode_of(item: pytest.Item) -> str:
    """The execution mode that the test's parameters name, or nothing."""
    call = getattr(item, "callspec", None)
    parameters = () if call is None else call.params.values()
    return next((value for value in parameters if value in MODES), "")


def group_of(item: pytest.Item) -> str:
    """What uses the same engines: a file in one mode, or the files of one server."""
    file = item.nodeid.partition("::")[0]
    return SHARED.get(file) or f"{file} {mode_of(item)}".rstrip()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Group what uses the same engines for several test processes."""
    item.add_marker(pytest.mark.xdist_group(group_of(item)))


def place_of(item: pytest.Item) -> tuple[int, int, int]:
    """Where a test comes in the order of a run: groups that take long are started first."""
    group, mode = group_of(item), mode_of(item)
    longest = LONGEST.index(group) if group in LONGEST else len(LONGEST)
    folders = [place for place, folder in enumerate(FIRST) if item.nodeid.startswith(folder)]
    return (
        longest,
        folders[0] if folders else len(FIRST),
        MODES.index(mode) if mode else len(MODES),
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests such that groups which take long are started first."""
    items.sort(key=place_of)


@pytest.fixture(scope="session")
def model_directory() -> Path:
    """Where tiny models are kept between runs; their builder is idempotent."""
    directory = ROOT / ".cache" / "models"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture
def caplog(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """pytest's own, which also sees vLLM's loggers once an engine has detached them."""
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    return caplog
