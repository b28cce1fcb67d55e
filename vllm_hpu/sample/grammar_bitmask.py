"""The grammars of a step, sent to where the sampler's graphs read them."""

from __future__ import annotations

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.core.sched.output import GrammarOutput
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.structured_outputs import _build_grammar_mapping

_EVERYTHING = -1  # a word of set bits
_NO_LIMIT = np.iinfo(np.int32).max


class GrammarMasks:
    """Masks of allowed tokens, one per place for logits; everything is allowed where none is set.

    Attributes:
        mask: int32 ``[R * W, ceil(vocabulary / 32)]``, a set bit allows the token.
        acceptable: int32 ``[R]``, drafts of the row that its grammar has seen.
    """

    def __init__(self, rows: int, width: int, vocab_size: int, device: torch.device) -> None:
        self._width = width
        self.mask = torch.full(
            (rows * width, -(-vocab_size // 32)), _EVERYTHING, dtype=torch.int32, device=device
        )
        self.acceptable = torch.full((rows,), _NO_LIMIT, dtype=torch.int32, device=device)
        # How many of the first entries are not as at the start.
        self._used_masks = self._used_rows = 0

    def stage(self, batch: InputBatch, grammar: GrammarOutput | None) -> None:
        """Send the masks of a step, and take back those of the step before."""
        places, masks = np.zeros(0, dtype=np.int64), np.zeros((0, 1), dtype=np.int32)
        rows, limits = places, np.zeros(0, dtype=np.int32)
        if grammar is not None:
            names = grammar.structured_output_request_ids
            row_of = {name: row for row, name in enumerate(batch.req_ids)}
            places = np.asarray(
                _build_grammar_mapping(
                    batch.req_ids,
                    names,
                    batch.cu_num_logits_np,
                    batch.num_draft_tokens_per_req,
                    1,
                    self._width,
                ),
                dtype=np.int64,
            )
            masks = grammar.grammar_bitmask[: len(places)]
            rows = np.asarray([row_of[name] for name in names], dtype=np.int64)
            # Without numbers no draft has been seen.
            seen = grammar.num_acceptable_drafts or [0] * len(names)
            limits = np.asarray(seen, dtype=np.int32)
        self._used_masks = _send(places, masks, self._used_masks, _EVERYTHING, self.mask)
        if self._width > 1:
            self._used_rows = _send(rows, limits, self._used_rows, _NO_LIMIT, self.acceptable)


def _send(
    places: np.ndarray, values: np.ndarray, were_used: int, neutral: int, target: torch.Tensor
) -> int:
    """Send ``values`` for ``places`` and ``neutral`` before and between; returns how many are used.

    One copy, of as many as are used now or were before.
    """
    used = int(places.max()) + 1 if len(places) else 0
    sent = max(used, were_used)
    if sent:
        entries = np.full((sent, *target.shape[1:]), neutral, dtype=np.int32)
        entries[places] = values
        async_tensor_h2d(entries, out=target[:sent])
    return used
