"""Sampling features that keep state per request: the real state objects, a few requests, a step.

The requests repeat few tokens, so that words, markers and counts do match.
"""

import numpy as np
import torch
from vllm.config.reasoning import ReasoningConfig
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.worker.gpu.sample.bad_words import BadWordsState
from vllm.v1.worker.gpu.sample.logit_bias import LogitBiasState
from vllm.v1.worker.gpu.sample.logits_processor.interface import (
    LogitsContext,
    LogitsProcRequestState,
)
from vllm.v1.worker.gpu.sample.penalties import PenaltiesState
from vllm.v1.worker.gpu.sample.thinking_budget import ThinkingBudgetState
from vllm.v1.worker.gpu.states import RequestState

from tests.oracle.case import Make, Outputs, case

REQUESTS, LONGEST, DRAFTS = 5, 64, 3
PLAIN, DRAFTED = [1] * REQUESTS, [1, 4, 2, 1, 3]
STEPS = [(vocab, rows) for vocab in (70, 9000) for rows in (PLAIN, DRAFTED)]


class Batch:
    """Five requests in state rows in some order; the row behind them is the dump row.

    `rows`: number of logits rows of each request, 1 + its draft tokens.
    """

    def __init__(self, make: Make, vocab: int, rows: list[int], used_tokens: int = 6) -> None:
        self.make, self.vocab = make, vocab
        self.states = RequestState(
            REQUESTS + 1, LONGEST, 64, DRAFTS, vocab, make.device, num_prefill_lookahead=1
        )
        self.slots = []
        generator = make.generator
        for number in range(REQUESTS):
            total = int(torch.randint(20, 50, (), generator=generator))
            prompt = int(torch.randint(4, total, (), generator=generator))
            tokens = torch.randint(0, used_tokens, (total,), generator=generator).tolist()
            name = f"request {number}"
            self.states.add_request(name, prompt, tokens, total - 1, 10)
            self.slots.append(self.states.req_id_to_index[name])
        self.states.apply_staged_writes()
        idx = torch.tensor(self.slots)
        local = torch.cat([torch.arange(count) for count in rows])
        count = torch.tensor(rows)
        total = torch.tensor(self.states.prefill_len.np)[idx]
        self.context = LogitsContext(
            expanded_idx_mapping=make.made(idx.repeat_interleave(count)),
            idx_mapping=make.made(idx),
            idx_mapping_np=idx.numpy(),
            expanded_local_pos=make.made(local.int()),
            # -1 is a draft that nobody proposed; the first row of a request is never one.
            input_ids=torch.maximum(
                make.ints(-1, used_tokens, len(local)), make.made(-(local > 0).int())
            ),
            pos=make.made(total.repeat_interleave(count) - 1 + local),
            seq_lens_upper_bound_np=(total + count).numpy(),
        )
        self.logits = make.normal(len(local), vocab)

    def shared(self) -> LogitsProcRequestState:
        return LogitsProcRequestState.from_request_state(self.states)

    def apply(self, processor, params: list[SamplingParams]) -> torch.Tensor:
        for slot, param in zip(self.slots, params, strict=True):
            processor.add_request(slot, param)
        processor.apply_staged_writes()
        changed = processor.apply(self.logits, self.context)
        return self.logits if changed is None else changed


@case(*STEPS, tolerance=1e-6)
def penalties(make: Make, vocab: int, rows: list[int]) -> Outputs:
    batch = Batch(make, vocab, rows)
    params = [
        SamplingParams(),
        SamplingParams(repetition_penalty=1.3),
        SamplingParams(frequency_penalty=0.7),
        SamplingParams(presence_penalty=-0.4, frequency_penalty=0.2),
        SamplingParams(repetition_penalty=0.8, presence_penalty=1.1),
    ]
    processor = PenaltiesState(None, batch.shared())
    logits = batch.apply(processor, params)
    used = batch.slots[1:]
    return {
        "logits": logits,
        "prompt": processor.prompt_bin_mask[used],
        "output": processor.output_bin_counts[used],
    }


@case(*STEPS)
def bad_words(make: Make, vocab: int, rows: list[int]) -> Outputs:
    batch = Batch(make, vocab, rows, used_tokens=3)
    words = [
        [],
        [[5], [0, 1], [2, 1], [0, 0, 7]],
        [[a, b, 10 + 3 * a + b] for a in range(3) for b in range(3)],
        [[a, b, c, 20 + b] for a in range(3) for b in range(3) for c in range(2)],
        [[0] * 60 + [9], [1, 40], [1, 41], [2, 41]],
    ]
    params = [SamplingParams() for _ in words]
    for param, listed in zip(params, words, strict=True):
        param._bad_words_token_ids = listed
    processor = BadWordsState(None, batch.shared())
    # Leftovers of earlier requests must not matter.
    for slot in batch.slots:
        processor.add_request(slot, params[3])
    processor.apply_staged_writes()
    return {"logits": batch.apply(processor, params)}


@case(*STEPS, tolerance=1e-6)
def logit_bias(make: Make, vocab: int, rows: list[int]) -> Outputs:
    batch = Batch(make, vocab, rows)
    params = [
        SamplingParams(),
        SamplingParams(allowed_token_ids=[3, 60, 1]),
        SamplingParams(logit_bias={5: -20.0, 11: 3.5}),
        SamplingParams(max_tokens=99, min_tokens=40, stop_token_ids=[2, 8, 30]),
        SamplingParams(
            max_tokens=99,
            min_tokens=60,
            stop_token_ids=[4],
            allowed_token_ids=[4, 9],
            logit_bias={9: 2.0},
        ),
    ]
    return {"logits": batch.apply(LogitBiasState(None, batch.shared()), params)}


@case(*STEPS)
def minimum_length_gives_way_to_grammar(make: Make, vocab: int, rows: list[int]) -> Outputs:
    batch = Batch(make, vocab, rows)
    grammar = StructuredOutputsParams(regex="a*")
    shared = {"max_tokens": 99, "min_tokens": 60, "stop_token_ids": [2, 8]}
    params = [SamplingParams(structured_outputs=grammar, **shared) for _ in batch.slots]
    params[1] = SamplingParams(**shared)
    # Rows of the first, second and last request can only stop.
    for row in (0, 1, len(batch.logits) - 1):
        kept = batch.logits[row, [2]].clone()
        batch.logits[row] = float("-inf")
        batch.logits[row, [2]] = kept
    return {"logits": batch.apply(LogitBiasState(None, batch.shared()), params)}


@case(
    *[
        (markers, rows, seed)
        for markers in ("single", "double", "prefix")
        for rows in (PLAIN, DRAFTED)
        for seed in range(4)
    ]
)
def thinking_budget(make: Make, markers: str, rows: list[int], seed: int) -> Outputs:
    make.generator.manual_seed(seed)
    start, natural, forced = {
        "single": ([0], [1], [2]),
        "double": ([0, 2], [1], [3, 4, 1]),
        "prefix": ([0], [1, 1], [2, 2, 3]),
    }[markers]
    config = ReasoningConfig()
    config._reasoning_start_token_ids = start
    config._natural_reasoning_end_token_ids = natural
    config._reasoning_end_token_ids = forced
    batch = Batch(make, 70, rows, used_tokens=5)
    state = ThinkingBudgetState(batch.states, config)
    params = [SamplingParams(thinking_token_budget=n) for n in (None, 0, 2, 5, 12)]
    outputs = {"first": batch.apply(state, params).clone()}
    # A second step: some tokens were committed since.
    grown = np.array([1, 1 + DRAFTS, 2, 1, 1])
    for slot, count in zip(batch.slots, grown, strict=True):
        total = int(batch.states.prefill_len.np[slot])
        new = torch.randint(0, 5, (int(count),), generator=make.generator).tolist()
        batch.states.all_token_ids.stage_write(slot, total, new)
        batch.states.total_len.stage_write_elem(slot, total + int(count))
    batch.states.apply_staged_writes()
    batch.logits = make.normal(*batch.logits.shape)
    state.apply(batch.logits, batch.context)
    return outputs | {"second": batch.logits}
