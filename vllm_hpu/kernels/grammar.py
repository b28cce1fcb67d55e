"""Structured output: mask the tokens a grammar forbids.

Replaces `StructuredOutputsWorker.apply_grammar_bitmask` of `vllm.v1.worker.gpu`. The masks come
from the host, where it is known which logits row each one is for: masks and rows travel together
in one copy, padded to few shapes.
"""

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.structured_outputs import StructuredOutputsWorker, _build_grammar_mapping

from vllm_hpu.kernels.bits import unpack


def apply_grammar_bitmask(
    self: StructuredOutputsWorker,
    logits: torch.Tensor,
    input_batch: InputBatch,
    grammar_req_ids: list[str],
    grammar_bitmask: np.ndarray,
) -> None:
    """Mask forbidden tokens in place.

    logits: [N, V]; grammar_bitmask: [masks, ceil(V / 32)] int32, a set bit allows the token, masks
    in the order of `grammar_req_ids`, one per logits row of each request.
    """
    if not grammar_req_ids:
        return
    places = np.asarray(
        _build_grammar_mapping(
            input_batch.req_ids,
            grammar_req_ids,
            input_batch.cu_num_logits_np,
            input_batch.num_draft_tokens_per_req,
            self.num_bonus_tokens,
            self.mask_stride,
        ),
        dtype=np.int64,
    )
    request, position = np.divmod(places, self.mask_stride)
    starts = input_batch.cu_num_logits_np
    # A mask may be scheduled for a draft that was dropped since.
    present = position < starts[request + 1] - starts[request]
    masks, rows = grammar_bitmask[present], (starts[request] + position)[present]
    if not len(rows):
        return
    packed = np.empty((1 << (len(rows) - 1).bit_length(), 1 + masks.shape[1]), dtype=np.int32)
    packed[: len(rows), 0], packed[: len(rows), 1:] = rows, masks
    # Padding repeats the last mask for the same row, which changes nothing.
    packed[len(rows) :] = packed[len(rows) - 1]
    forbid(logits, async_tensor_h2d(packed, device=logits.device))


def forbid(logits: torch.Tensor, packed: torch.Tensor) -> None:
    """Mask tokens whose bit is 0. packed: [M, 1 + W] int32: logits row, then the row's bits.

    A row may occur more than once if its bits are the same.
    """
    rows = packed[:, 0].long()
    allowed = unpack(packed[:, 1:], logits.shape[1])
    masked = logits.index_select(0, rows).masked_fill_(~allowed, float("-inf"))
    logits.index_copy_(0, rows, masked)
