"""Launchers of `vllm.v1.worker.gpu.input_batch`.

A layout is a list of rows (query length, prompt length, computed tokens, draft tokens). A row of
query length 0 is a padding row and points at the dump row, the last state row.
"""

import torch
from vllm.v1.worker.gpu import input_batch

from tests.oracle.case import Make, Outputs, case

STATES, LONGEST, TOKENS, ROWS = 9, 64, 48, 8

DECODE = [(1, 5, 7, 0), (1, 6, 6, 0), (1, 1, 40, 0)]
MIXED = [(1, 5, 7, 0), (1, 9, 9, 0), (7, 20, 3, 0), (11, 11, 0, 0), (1, 30, 29, 0)]
PADDED = [(1, 5, 7, 0), (1, 9, 12, 0), (13, 40, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)]
DRAFTS = [(4, 5, 7, 3), (2, 6, 6, 1), (1, 1, 40, 0), (3, 9, 8, 2), (9, 9, 0, 0), (5, 50, 20, 0)]
LAYOUTS = [("decode", DECODE), ("mixed", MIXED), ("padded", PADDED), ("drafts", DRAFTS)]
ALL = [(name, dtype) for name, _ in LAYOUTS for dtype in (torch.int64, torch.int32)]


class Step:
    """State tensors and row tensors of one layout."""

    def __init__(self, make: Make, layout: str, dtype: torch.dtype = torch.int64) -> None:
        rows = dict(LAYOUTS)[layout]
        self.rows = rows
        states = torch.randperm(STATES - 1, generator=make.generator)[: len(rows)].tolist()
        states = [s if row[0] else STATES - 1 for s, row in zip(states, rows, strict=True)]
        self.idx = make.made(states, dtype=dtype)
        self.starts = make.starts([row[0] for row in rows], ROWS + 1)
        self.cu_logits = make.starts([1 + row[3] for row in rows])
        self.num_logits = sum(1 + row[3] for row in rows)
        self.num_tokens = sum(row[0] for row in rows)
        self.real = sum(row[0] > 0 for row in rows)
        prompt, computed = [0] * STATES, [0] * STATES
        for state, (_, prompt_len, done, _) in zip(states, rows, strict=True):
            prompt[state], computed[state] = prompt_len, done
        self.prompt_len = make.made(prompt, dtype=torch.int32)
        self.computed = make.made(computed, dtype=torch.int32)
        self.token_ids = make.ints(0, 1000, STATES, LONGEST)
        lengths = [done + length for length, _, done, _ in rows]
        self.seq_lens = make.made(lengths + [0] * (ROWS - len(rows)), dtype=torch.int32)


@case(*ALL)
def prepare_prefill_inputs(make: Make, layout: str, dtype: torch.dtype) -> Outputs:
    step = Step(make, layout, dtype)
    input_ids = make.ints(0, 1000, TOKENS)
    following = make.ints(0, 1000, 1 if layout == "mixed" else 3, STATES)
    input_batch.prepare_prefill_inputs(
        input_ids, following, step.idx, step.starts, step.token_ids, step.prompt_len, step.computed
    )
    return {"input_ids": input_ids, "following": following[:, :-1]}


@case(*ALL)
def prepare_pos_seq_lens(make: Make, layout: str, dtype: torch.dtype) -> Outputs:
    step = Step(make, layout, dtype)
    # Ours clears the positions of padding tokens; Triton's leaves them, so they start clear.
    pos = make.zeros(TOKENS, dtype=torch.int64)
    seq_lens = make.ints(1, 9, ROWS)
    input_batch.prepare_pos_seq_lens(step.idx, step.starts, step.computed, pos, seq_lens)
    return {"pos": pos, "seq_lens": seq_lens}


@case(*[(*layout, new) for layout in ALL for new in (0, 1)], ("none", torch.int64, 1))
def combine_sampled_and_draft(make: Make, layout: str, dtype: torch.dtype, new: int) -> Outputs:
    step = Step(make, "padded" if layout == "none" else layout, dtype)
    input_ids = make.ints(0, 1000, TOKENS)
    last = make.ints(0, 1000, STATES, 1, dtype=torch.int64)
    drafts = make.ints(0, 1000, STATES, 0 if layout == "none" else 4, dtype=torch.int64)
    if new == 0:  # all logits belong to drafts
        step.cu_logits = make.starts([row[3] for row in step.rows])
        step.num_logits -= len(step.rows)
    indices = input_batch.combine_sampled_and_draft_tokens(
        input_ids,
        step.idx,
        last,
        step.starts,
        step.seq_lens,
        step.prompt_len,
        drafts,
        step.cu_logits,
        step.num_logits,
        new,
    )
    return {"indices": indices, "input_ids": input_ids}


@case(*ALL)
def num_sampled_and_rejected(make: Make, layout: str, dtype: torch.dtype) -> Outputs:
    step = Step(make, layout, dtype)
    counts = [1 + row[3] for row in step.rows]
    sampled = torch.stack([make.ints(1, count + 1, 1)[0] for count in counts])
    sampled, rejected = input_batch.get_num_sampled_and_rejected(
        sampled, step.seq_lens, step.cu_logits, step.idx, step.prompt_len
    )
    # Padding rows differ on purpose: ours sample nothing.
    return {"sampled": sampled[: step.real], "rejected": rejected[: step.real]}


@case(
    *[
        (layout, width, counted, skipped)
        for layout, _ in LAYOUTS
        for width, counted, skipped in ((1, True, False), (4, True, True), (4, False, False))
    ]
)
def post_update(make: Make, layout: str, width: int, counted: bool, skipped: bool) -> Outputs:
    step = Step(make, layout)
    if skipped:
        step.idx[1] = -1
    rows = len(step.rows)
    computed = make.ints(0, 9, STATES)
    last = make.ints(0, 1000, STATES, 1, dtype=torch.int64)
    bins = make.ints(0, 3, STATES, 50) if counted else None
    sampled = make.ints(0, 50, rows, width, dtype=torch.int64)
    num_sampled = make.ints(0, width + 1, rows)
    num_rejected = make.ints(0, 3, rows)
    total = make.ints(1, 30, STATES)
    starts = step.starts if width == 4 else None
    input_batch.post_update(
        step.idx,
        computed,
        last,
        bins,
        sampled,
        num_sampled,
        num_rejected,
        starts,
        step.token_ids,
        total,
    )
    outputs = {"computed": computed, "last": last, "tokens": step.token_ids, "total": total}
    if bins is not None:
        outputs["bins"] = bins
    return {name: value[:-1] for name, value in outputs.items()}


@case(*ALL)
def post_update_computed(make: Make, layout: str, dtype: torch.dtype) -> Outputs:
    step = Step(make, layout, dtype)
    input_batch.post_update_num_computed_tokens(step.idx, step.computed, step.starts)
    return {"computed": step.computed}


@case(*ALL)
def expand_idx_mapping(make: Make, layout: str, dtype: torch.dtype) -> Outputs:
    step = Step(make, layout, dtype)
    idx, pos = input_batch.expand_idx_mapping(step.idx, step.num_logits, step.cu_logits, 4)
    return {"idx": idx, "pos": pos}
