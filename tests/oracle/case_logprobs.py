"""Log-probabilities, ranks and prompt log-probabilities."""

import torch
from vllm.v1.worker.gpu.metrics.logits import get_num_nans
from vllm.v1.worker.gpu.sample import logprob, prompt_logprob

from tests.oracle.case import Make, Outputs, case
from tests.oracle.case_inputs import LAYOUTS, Step

SIZES = [(rows, vocab) for rows in (1, 4) for vocab in (40, 1500)]
NEARLY_EXACT = 2e-6  # float32 sums in another order


@case(
    *[(*size, dtype) for size in SIZES for dtype in (torch.float32, torch.bfloat16)],
    tolerance=NEARLY_EXACT,
)
def token_logprobs(make: Make, rows: int, vocab: int, dtype: torch.dtype) -> Outputs:
    logits = make.normal(rows, vocab, dtype=dtype)
    ids = make.ints(0, vocab, rows, 6, dtype=torch.int64)
    return {"logprobs": logprob.compute_token_logprobs(logits, ids)}


@case(
    *[(*size, k, listed) for size in SIZES for k, listed in ((0, 0), (5, 0), (0, 3), (5, 3))],
    tolerance=NEARLY_EXACT,
)
def topk_scores(make: Make, rows: int, vocab: int, k: int, listed: int) -> Outputs:
    state = logprob.LogprobTokenIdsState(5, make.device)
    if listed:
        state.num_token_ids.np[[1, 3]] = [2, listed]
        state.token_ids.stage_write(1, 0, [7, 3])
        state.token_ids.stage_write(3, 0, list(range(listed)))
        state.apply_staged_writes()
    # Distinct logits: the order of equal ones is nobody's promise.
    logits = torch.stack([make.permutation(vocab) for _ in range(rows)]).float() / 100
    result = logprob.compute_topk_scores(
        logits,
        k,
        make.ints(0, vocab, rows, dtype=torch.int64),
        logprob_token_ids_state=state,
        expanded_idx_mapping=make.made([3, 0, 1, 2][:rows]),
        max_per_req_token_ids=listed,
    )
    return {
        "ids": result.logprob_token_ids,
        "logprobs": result.logprobs,
        "ranks": result.selected_token_ranks,
    }


@case(*[(layout,) for layout, _ in LAYOUTS])
def prompt_logprob_tokens(make: Make, layout: str) -> Outputs:
    step = Step(make, layout)
    tokens = prompt_logprob.get_prompt_logprobs_token_ids(
        step.num_tokens, step.starts, step.idx, step.computed, step.token_ids
    )
    return {"tokens": tokens}


@case(*SIZES)
def num_nans(make: Make, rows: int, vocab: int) -> Outputs:
    logits = make.normal(rows, vocab)
    logits[-1, [0, 7, vocab - 1]] = float("nan")
    return {"nans": get_num_nans(logits)}
