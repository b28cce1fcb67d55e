"""Where the draft tokens of engines without a draft model are kept, if there are any."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["DraftTable"]


class DraftTable:
    """Draft tokens, which the proposer's graph writes.

    Stands in for vLLM's ``RequestState.draft_tokens``, whose rows vLLM reads and writes by
    operators of their own between the graphs of a step.

    Attributes:
        of_request: int64 ``[S, K]``, by row of the request states; S includes the dump row.
        of_row: int64 ``[S, K]``, the same in the order of the last step's rows.
    """

    def __init__(self, states: int, num_drafts: int, device: torch.device) -> None:
        self.of_request = torch.zeros(states, num_drafts, dtype=torch.int64, device=device)
        self.of_row = torch.zeros_like(self.of_request)
        self._nowhere = torch.zeros(num_drafts, dtype=torch.int64)

    @property
    def shape(self) -> torch.Size:
        return self.of_request.shape

    def __setitem__(self, rows: torch.Tensor, drafts: torch.Tensor) -> None:
        """Keep what was proposed for the step's rows [n], unless the graph has written it."""
        if drafts.data_ptr() != self.of_row.data_ptr():
            self.of_row[: drafts.shape[0]].copy_(drafts)
            self.of_request.index_copy_(0, rows, drafts)

    def __getitem__(self, place: Any) -> torch.Tensor:
        """``[rows, :n]``: the last step's proposals; ``[row]``: what a new request clears."""
        if isinstance(place, tuple):
            rows, columns = place
            return self.of_row[: rows.shape[0], columns]
        return self._nowhere
