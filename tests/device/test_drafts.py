"""Draft tokens of engines without a draft model, as vLLM's runner reads and writes them."""

import gaudi_emulator
import torch

from vllm_hpu.step.draft_table import DraftTable

DEVICE = torch.device("hpu")


def test_drafts_of_a_graph_are_where_it_has_written_them() -> None:
    table = DraftTable(4, 2, DEVICE)
    table.of_row.copy_(torch.tensor([[1, 2], [3, 4], [0, 0], [0, 0]]))
    rows = torch.tensor([2, 0]).to(DEVICE)
    with gaudi_emulator.measure() as work:
        table[rows] = table.of_row[:2]
        table[3].zero_()
        found = table[rows, :1]
    assert not work.launches
    assert found.tolist() == [[1], [3]]
    assert not table.of_request.any()


def test_drafts_that_no_graph_has_written_are_kept() -> None:
    table = DraftTable(4, 2, DEVICE)
    rows = torch.tensor([2, 0]).to(DEVICE)
    table[rows] = torch.tensor([[1, 2], [3, 4]]).to(DEVICE)
    assert table.of_request.tolist() == [[3, 4], [0, 0], [1, 2], [0, 0]]
    assert table[rows, :2].tolist() == [[1, 2], [3, 4]]
    assert table.shape == (4, 2)
