"""What all tests share: a quiet, offline environment, a small card, and models made on demand."""

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
if "PYTEST_XDIST_WORKER" in os.environ:
    # One process per core already.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What takes longest is started first, so that no process is left with it at the end.
FIRST = ("tests/engine/", "tests/serve/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests for several processes; each takes a whole file, with its engines."""
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


@pytest.fixture(scope="session")
def model_directory() -> Path:
    """Where tiny models are kept between runs; their builder is idempotent."""
    directory = ROOT / ".cache" / "models"
    directory.mkdir(parents=True, exist_ok=True)
    return directory
