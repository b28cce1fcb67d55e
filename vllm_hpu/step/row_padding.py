"""Pad the rows of a step to a planned count.

Padding rows point at the dump row: one row of the request states more than there can be requests.
They schedule no token, so they own no query, no block and no sampled token anyone reads.
"""

from __future__ import annotations

import numpy as np
from vllm.v1.worker.gpu.model_runner import BatchReqState


def pad_rows(state: BatchReqState, rows: int, dump_row: int) -> BatchReqState:
    """Append padding rows until there are ``rows``; arrays are [rows] afterwards.

    ``req_ids`` grows by empty strings, which the caller removes once the inputs are prepared.
    """
    missing = rows - len(state.req_ids)
    if missing <= 0:
        return state

    def zeros(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array, np.zeros(missing, dtype=array.dtype)])

    return state._replace(
        req_ids=[*state.req_ids, *[""] * missing],
        num_scheduled_tokens=zeros(state.num_scheduled_tokens),
        num_draft_tokens_np=_maybe(zeros, state.num_draft_tokens_np),
        idx_mapping_np=np.concatenate(
            [state.idx_mapping_np, np.full(missing, dump_row, dtype=state.idx_mapping_np.dtype)]
        ),
        prefill_len_np=zeros(state.prefill_len_np),
        num_computed_prefill_tokens_np=zeros(state.num_computed_prefill_tokens_np),
        is_prefilling_np=zeros(state.is_prefilling_np),
        max_seq_len_np=_maybe(zeros, state.max_seq_len_np),
        prefill_runs_as_decode_np=_maybe(zeros, state.prefill_runs_as_decode_np),
    )


def _maybe(function, array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else function(array)
