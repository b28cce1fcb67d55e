"""The device under test: the emulated cards, or real ones with HPU_TEST_DEVICE=card."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ON_CARD = os.environ.get("HPU_TEST_DEVICE") == "card"

if ON_CARD:
    import habana_frameworks.torch  # noqa: F401 - registers the device
else:
    import gaudi_emulator

    gaudi_emulator.activate()


emulated_only = pytest.mark.skipif(
    ON_CARD, reason="asks the emulator for something a card does not report"
)


@pytest.fixture(autouse=True)
def no_known_recipes() -> None:
    """Every test compiles what it needs, whatever ran before it in this process."""
    if not ON_CARD:
        from gaudi_emulator import recipes

        recipes.forget()


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No compiled code from other tests, no gradients, and the mode that the backend needs."""
    import torch
    from habana_frameworks.torch.utils import internal

    monkeypatch.setattr(internal._Mode, "lazy", False)
    torch._dynamo.reset()
    with torch.inference_mode():
        yield
    torch._dynamo.reset()


class Happened:
    """What the device counted inside `counted()`; complete when the block has ended."""

    def __init__(self) -> None:
        self.counters: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["counters"], name)


@contextmanager
def counted() -> Iterator[Happened]:
    """Count what the device does inside the block."""
    happened = Happened()
    before = gaudi_emulator.counters()
    yield happened
    happened.counters = gaudi_emulator.counters() - before


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own, on a device that `environment` configures."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GAUDI_EMULATOR_", "HABANA_"))
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
