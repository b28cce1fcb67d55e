"""Launchers of speculative decoding: inputs of the draft model, verification at temperature 0."""

from types import SimpleNamespace

import torch
from vllm.v1.worker.gpu.input_batch import InputBuffers
from vllm.v1.worker.gpu.mm.rope import RopeState
from vllm.v1.worker.gpu.spec_decode import rejection_sampler
from vllm.v1.worker.gpu.spec_decode.standalone_ar import speculator as standalone
from vllm.v1.worker.gpu.spec_decode.target_dependent_ar import speculator as dependent

from tests.oracle.case import Make, Outputs, case
from tests.oracle.case_inputs import LAYOUTS, LONGEST, ROWS, STATES, TOKENS, Step

NAMES = [(name,) for name, _ in LAYOUTS]


def target_step(make: Make, layout: str):
    """The step of the target model and what came of it."""
    step = Step(make, layout)
    rejected = torch.tensor([row[3] and row[3] - 1 for row in step.rows], dtype=torch.int32)
    batch = SimpleNamespace(
        num_reqs=len(step.rows),
        num_tokens=step.num_tokens,
        input_ids=make.ints(0, 1000, step.num_tokens + 3),
        positions=make.ints(0, LONGEST, step.num_tokens + 3, dtype=torch.int64),
        idx_mapping=step.idx,
        query_start_loc=step.starts,
        query_start_loc_np=step.starts.cpu().numpy(),
        seq_lens=step.seq_lens,
    )
    buffers = InputBuffers(ROWS, TOKENS, make.device)
    buffers.input_ids.copy_(make.ints(0, 1000, TOKENS))
    buffers.positions.copy_(make.ints(0, LONGEST, TOKENS))
    buffers.seq_lens.copy_(make.ints(1, LONGEST, ROWS))
    return step, batch, buffers, make.made(rejected)


@case(*[(name,) for name, _ in LAYOUTS if name != "padded"])
def dependent_prefill_inputs(make: Make, layout: str) -> Outputs:
    step, batch, buffers, rejected = target_step(make, layout)
    indices = make.ints(0, 9, ROWS, dtype=torch.int64)
    current = make.made(3, dtype=torch.int64)
    dependent.prepare_prefill_inputs(
        indices,
        current,
        buffers,
        batch,
        make.ints(0, 2, len(step.rows)),
        rejected,
        make.ints(0, 1000, STATES, 1, dtype=torch.int64),
        make.ints(0, 1000, STATES),
        ROWS,
    )
    return {"indices": indices, "step": current, **_state(buffers)}


def _state(buffers: InputBuffers) -> Outputs:
    return {
        "ids": buffers.input_ids,
        "positions": buffers.positions,
        "starts": buffers.query_start_loc,
        "lengths": buffers.seq_lens,
    }


@case(*[(name, advance) for name, _ in LAYOUTS for advance in (True, False)])
def dependent_decode_inputs(make: Make, layout: str, advance: bool) -> Outputs:
    step, batch, buffers, rejected = target_step(make, layout)
    source = make.ints(0, LONGEST, ROWS, dtype=torch.int64)
    drafts = make.ints(0, 1000, len(step.rows), 2, dtype=torch.int64)[:, 0]
    dependent.prepare_decode_inputs(
        drafts, batch.seq_lens, rejected, buffers, source, 41, ROWS, advance
    )
    return {"source": source, **_state(buffers)}


@case(*[(step, advance) for step in (0, 2, 3) for advance in (True, False)])
def dependent_update(make: Make, step: int, advance: bool) -> Outputs:
    rows, hidden = 5, 70
    buffers = InputBuffers(ROWS, TOKENS, make.device)
    buffers.positions.copy_(make.ints(35, 41, TOKENS))
    buffers.seq_lens.copy_(make.ints(35, 42, ROWS))
    source = make.ints(0, LONGEST, ROWS, dtype=torch.int64)
    output = make.ints(0, 1000, ROWS, 4, dtype=torch.int64)
    following = make.normal(ROWS, hidden)
    dependent.update_draft_inputs(
        make.ints(0, 1000, rows, dtype=torch.int64),
        make.made(step, dtype=torch.int64),
        make.normal(rows, hidden),
        output,
        following,
        buffers,
        source,
        rows,
        41,
        4,
        advance,
    )
    return {"output": output, "hidden": following, "source": source, **_state(buffers)}


@case(*NAMES)
def standalone_prefill_inputs(make: Make, layout: str) -> Outputs:
    _, batch, buffers, rejected = target_step(make, layout)
    ids = make.ints(0, 1000, TOKENS + ROWS)
    positions = make.ints(0, LONGEST, TOKENS + ROWS, dtype=torch.int64)
    indices = make.ints(0, 9, ROWS, dtype=torch.int64)
    total = standalone.prepare_prefill_inputs(
        buffers,
        batch,
        make.ints(0, 1000, STATES, dtype=torch.int64),
        rejected,
        ids,
        positions,
        indices,
        ROWS,
        45,
    )
    state = _state(buffers) | {"ids": ids, "positions": positions, "indices": indices}
    return state | {"total": torch.tensor(total)}


@case(*[(name,) for name, _ in LAYOUTS if name != "padded"])
def gather_draft_sampled(make: Make, layout: str) -> Outputs:
    step = Step(make, layout)
    counts = [row[3] + 1 for row in step.rows]
    local = torch.cat([torch.arange(count) for count in counts])
    rows = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    sampled, pos = rejection_sampler.gather_draft_sampled(
        make.ints(0, 1000, TOKENS),
        make.ints(0, LONGEST, TOKENS, dtype=torch.int64),
        make.ints(0, step.num_tokens, step.num_logits, dtype=torch.int64),
        step.idx[make.made(rows)],
        make.made(local.int()),
        step.prompt_len,
    )
    return {"sampled": sampled, "pos": pos}


@case()
def flatten_sampled(make: Make) -> Outputs:
    starts = make.starts([1, 4, 2, 3])
    flat = make.ints(0, 9, 10, dtype=torch.int64)
    sampled = make.ints(0, 100, 4, 4, dtype=torch.int64)
    count = make.made([1, 3, 0, 3], dtype=torch.int32)
    rejection_sampler._flatten_sampled_kernel[(4,)](
        flat, sampled, sampled.stride(0), count, starts, num_warps=1
    )
    return {"flat": flat}


@case(*[(*name, dims) for name in NAMES for dims in (3, 4)])
def rope_positions(make: Make, layout: str, dims: int) -> Outputs:
    step = Step(make, layout)
    state = RopeState(dims, STATES, TOKENS, LONGEST, make.device)
    state.prefill_positions.gpu.copy_(make.ints(0, 500, STATES * dims, LONGEST))
    state.prefill_delta.np[:] = make.ints(-9, 9, STATES).cpu().numpy()
    state.apply_staged_writes()
    state.prepare_positions(step.idx, step.starts, step.prompt_len, step.computed)
    return {"positions": state.positions}


FATES = {"all kept": "kkkkkkkkk", "none kept": "rrrrrrrrr", "some kept": "krkkkrkkr"}


@case(
    *[
        (fates, temperature, proposal, method)
        for fates in FATES
        for temperature in (0.0, 0.8)
        for proposal in ("certain", "logits", "placeholders")
        for method in ("standard", "block")
        if temperature or (method == "standard" and proposal != "logits")
    ]
)
def verify(make: Make, fates: str, temperature: float, proposal: str, method: str) -> Outputs:
    """Drafts that are certain to be kept ("k") or rejected ("r"), whatever the acceptance draw."""
    counts, vocab, states = [4, 2, 1, 4, 3], 1500, 8
    fate = iter(FATES[fates])
    temps = make.made([temperature] * states)
    idx = make.made([6, 0, 3, 1, 5])
    logits = make.normal(sum(counts), vocab) * 3
    draft_logits = make.normal(states, 3, vocab) if proposal == "logits" else None
    drafts = make.ints(0, vocab, sum(counts))
    row = 0
    for request, count in enumerate(counts):
        for step in range(count - 1):
            token = drafts[row + step + 1 : row + step + 2].long()
            if next(fate) == "k":
                # The target proposes just this token, or just what the draft model proposes.
                if draft_logits is not None:
                    logits[row + step] = draft_logits[idx[request], step] / temperature
                else:
                    logits[row + step] = -80.0
                    logits[row + step, token] = 0.0
            else:
                if draft_logits is not None:
                    # Close to the proposal, so that the residual is nothing like the target.
                    logits[row + step] /= 10
                    logits[row + step] += draft_logits[idx[request], step] / temperature
                logits[row + step, token] = float("-inf")
        row += count
    if proposal == "placeholders":
        drafts[[2, 9]] = -1
    sampler = rejection_sampler.RejectionSampler.__new__(rejection_sampler.RejectionSampler)
    sampler.watermark_key = None
    sampler.num_speculative_steps = 3
    sampler.synthetic_conditional_rates = None
    sampler.use_block_verification = method == "block"
    sampler.sampler = SimpleNamespace(
        use_fp64_gumbel=False,
        apply_sampling_params=lambda logits, *_: logits,
        sampling_states=SimpleNamespace(
            temperature=SimpleNamespace(gpu=temps, np=temps.cpu().numpy()),
            seeds=SimpleNamespace(gpu=make.ints(-(2**62), 2**62, states, dtype=torch.int64)),
        ),
    )
    count = torch.tensor(counts)
    rows = torch.arange(len(counts)).repeat_interleave(count)
    local = torch.cat([torch.arange(n) for n in counts])
    _, sampled, num_sampled = sampler._verify(
        logits,
        draft_logits,
        drafts,
        make.ints(0, 5000, sum(counts), dtype=torch.int64),
        make.starts(counts),
        idx,
        idx.cpu().numpy(),
        idx[make.made(rows)],
        make.made(local.int()),
        count.numpy(),
        drafts,
    )
    valid = torch.arange(sampled.shape[1], device=sampled.device) < num_sampled[:, None]
    return {"sampled": sampled * valid, "count": num_sampled}
