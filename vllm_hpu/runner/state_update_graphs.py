"""What runs between a step's graphs now and then, when requests come.

In graphs mode the bridge compiles these operators, too, at their first use. Each is a graph of its
own and of one shape (``own_graph``), so that warm-up can be that first use. Until then writes are
copied one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vllm_hpu.kernels.penalties import count_tokens
from vllm_hpu.kernels.staged_writes import scatter, scatter_many

if TYPE_CHECKING:
    from vllm_hpu.runner.model_runner import HpuModelRunner


class BetweenGraphs:
    """Runs all of it once, on the dump row."""

    takes_room = False

    def __init__(self, runner: HpuModelRunner) -> None:
        self._runner = runner
        self._pending = True

    def warm_up_one(self) -> bool:
        """Compile these graphs; False when that is done."""
        if not self._pending:
            return False
        self._pending, runner = False, self._runner
        requests, tables = runner.req_states, runner.block_tables.block_tables
        # What vLLM writes from the host for each request of a step.
        for tensor in (requests.total_len, requests.num_computed_tokens, *tables):
            # The last element belongs to the dump row.
            scatter(tensor, np.array([tensor.gpu.numel() - 1]), np.zeros(1, dtype=np.int64))
            scatter_many(tensor)
        if runner.sampler is not None:
            count_tokens(runner.sampler.penalties_state, runner.dump_row)
        return True
