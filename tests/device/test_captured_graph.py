"""A graph captured on a live step does the step's work once."""

import pytest
import torch
from habana_frameworks.torch.utils import internal

from vllm_hpu.device.graphs import CapturedGraph


@pytest.fixture(autouse=True)
def lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captures need the lazy mode, which a process chooses before it imports the bridge."""
    monkeypatch.setattr(internal._Mode, "lazy", True)


def test_work_in_place_is_done_once_per_capture_and_replay() -> None:
    counts = torch.zeros(4, dtype=torch.int32, device="hpu")
    row = torch.tensor([2], device="hpu")

    def count() -> torch.Tensor:
        return counts.index_add_(0, row, torch.ones_like(row, dtype=torch.int32)) * 10

    graph = CapturedGraph(count)
    assert counts.tolist() == [0, 0, 1, 0]
    assert graph.output.tolist() == [0, 0, 10, 0]
    assert graph.replay().tolist() == [0, 0, 20, 0]
    assert counts.tolist() == [0, 0, 2, 0]
