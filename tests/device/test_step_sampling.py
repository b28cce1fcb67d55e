"""A step's draw in one launch, against vLLM's samplers, operator by operator.

The kernels that both use are tested on their own (test_kernels_*.py).
"""

import random
from contextlib import nullcontext
from types import SimpleNamespace

import habana_frameworks.torch  # noqa: F401
import numpy as np
import pytest
import torch

from vllm_hpu.kernels import register

register()

from vllm import SamplingParams  # noqa: E402
from vllm.sampling_params import StructuredOutputsParams  # noqa: E402
from vllm.v1.core.sched.output import GrammarOutput  # noqa: E402
from vllm.v1.worker.gpu.sample.sampler import Sampler  # noqa: E402
from vllm.v1.worker.gpu.spec_decode.rejection_sampler import RejectionSampler  # noqa: E402
from vllm.v1.worker.gpu.states import RequestState  # noqa: E402
from vllm.v1.worker.gpu.structured_outputs import (  # noqa: E402
    StructuredOutputsWorker,
    grammar_invalid_drafts,
)

from vllm_hpu.graphs.launcher import Launcher  # noqa: E402
from vllm_hpu.graphs.mode import Mode  # noqa: E402
from vllm_hpu.sample.grammar_bitmask import GrammarMasks  # noqa: E402
from vllm_hpu.sample.graph_sampler import Asks, StepSampler, asks  # noqa: E402
from vllm_hpu.sample.logits_processors import special_of  # noqa: E402
from vllm_hpu.sample.sampling_graph import (  # noqa: E402
    DRAWS,
    GREEDY,
    Draw,
    Drawn,
    DrawRows,
    Rules,
    Scored,
    Wishes,
    draw_tokens,
)

REQUESTS, PADDING, VOCABULARY, LENGTH, MOST = 6, 2, 150, 64, 5
DUMP = REQUESTS
DEVICE = torch.device("hpu")


def sent(values, dtype) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=DEVICE)


def some_wishes(dice: random.Random, special: bool, temperatures: tuple[float, ...]):
    """Sampling parameters of a request: each is asked for now and then."""

    def perhaps(value, otherwise):
        return value if special and dice.random() < 0.4 else otherwise

    temperature = dice.choice(temperatures)
    hot = temperature > 0
    wishes = SamplingParams(
        temperature=temperature,
        top_k=dice.choice((0, 20, 3)) if hot else 0,
        top_p=dice.choice((1.0, 0.9)) if hot else 1.0,
        seed=dice.randrange(1 << 40),
        min_p=perhaps(0.1, 0.0) if hot else 0.0,
        repetition_penalty=perhaps(1.3, 1.0),
        frequency_penalty=perhaps(0.4, 0.0),
        presence_penalty=perhaps(-0.7, 0.0),
        logit_bias=perhaps({dice.randrange(VOCABULARY): 4.0, 7: -3.0}, None),
        allowed_token_ids=perhaps(dice.sample(range(VOCABULARY), 40), None),
        min_tokens=perhaps(LENGTH, 0),
        max_tokens=LENGTH,
        stop_token_ids=dice.sample(range(VOCABULARY), 3),
        logprobs=perhaps(dice.randint(0, MOST), None),
    )
    if special and dice.random() < 0.4:
        words = [[dice.randrange(9) for _ in range(dice.randint(1, 3))] for _ in range(12)]
        wishes._bad_words_token_ids = words
    return wishes


class Case:
    """Requests with random wishes in the middle of their work, and a step of all of them."""

    def __init__(self, seed: int, width: int, special: bool, temperatures: tuple[float, ...]):
        dice = self.dice = random.Random(seed)
        torch.manual_seed(seed)
        self.width = width
        states = self.states = RequestState(
            REQUESTS + 1, LENGTH, LENGTH, width - 1, VOCABULARY, DEVICE
        )
        states.free_indices.remove(DUMP)
        config = SimpleNamespace(reasoning_config=None)
        self.sampler = Sampler(config, REQUESTS + 1, VOCABULARY, DEVICE, states)
        order = dice.sample(range(REQUESTS), REQUESTS)
        self.names = [str(row) for row in range(REQUESTS)]
        self.rows = np.array([*order, *[DUMP] * PADDING])
        self.lengths, self.drafted = {}, {}
        for name in self.names:
            prompt, generated = dice.randint(2, 12), dice.randint(1, 20)
            tokens = [dice.randrange(9) for _ in range(prompt + generated)]
            states.add_request(name, prompt, tokens, 0, LENGTH)
            row = states.req_id_to_index[name]
            self.lengths[row] = prompt, prompt + generated
            wishes = some_wishes(dice, special, temperatures)
            self.sampler.add_request(row, wishes)
            self.drafted[row] = dice.randint(0, width - 1)
        states.apply_staged_writes()
        self.sampler.apply_staged_writes()
        # Counted as resumed requests; decoding ones have computed their prompt long ago.
        for row, (prompt, _) in self.lengths.items():
            states.prefill_len.np[row] = prompt
        in_prompt = order[0]
        states.prefill_len.np[in_prompt] = LENGTH  # one is in the middle of its prompt
        self.drafted[in_prompt] = 0
        states.prefill_len.copy_to_uva()
        self.drafts = torch.randint(0, 9, (REQUESTS + 1, max(0, width - 1)), device=DEVICE)
        self.counts = np.array([1 + self.drafted.get(row, 0) for row in self.rows])
        ends = [self.lengths[r][1] + self.drafted[r] if r != DUMP else 0 for r in self.rows]
        self.seq_lens = np.array(ends)
        places = len(self.rows) * width
        self.logits = 3 * torch.randn(places, VOCABULARY, device=DEVICE)
        self.grammar = self._grammar() if special else None

    def _grammar(self) -> GrammarOutput:
        """Two requests have one; the second's has seen one draft less than there are."""
        names = [self.names_of_row(1), self.names_of_row(3)]
        rows = sum(int(self.counts[row]) for row in (1, 3))
        generator = np.random.default_rng(self.dice.randrange(1000))
        words = generator.integers(-(2**31), 2**31, (rows, -(-VOCABULARY // 32)), dtype=np.int32)
        seen = [int(self.counts[1]) - 1, max(0, int(self.counts[3]) - 2)]
        return GrammarOutput(names, words, seen)

    def names_of_row(self, row: int) -> str:
        return self.states.index_to_req_id[int(self.rows[row])]

    def batch(self) -> SimpleNamespace:
        """The step as vLLM's samplers read it."""
        starts = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int32)
        row = np.repeat(np.arange(len(self.rows)), self.counts)
        place = np.arange(starts[-1]) - starts[row]
        state = self.rows[row]
        position = np.maximum(self.seq_lens[row] - self.counts[row] + place, 0)
        drafts = self.drafts.cpu().numpy()
        tokens = [drafts[s, p - 1] if p else 0 for s, p in zip(state, place, strict=True)]
        drafted = self.counts - 1
        return SimpleNamespace(
            req_ids=[self.names_of_row(row) for row in range(REQUESTS)],
            num_reqs=len(self.rows),
            num_draft_tokens=int(drafted.sum()),
            num_draft_tokens_per_req=drafted.astype(np.int32) if self.width > 1 else None,
            idx_mapping=sent(self.rows, torch.int64),
            idx_mapping_np=self.rows,
            expanded_idx_mapping=sent(state, torch.int64),
            expanded_local_pos=sent(place, torch.int32),
            cu_num_logits=sent(starts, torch.int32),
            cu_num_logits_np=starts,
            positions=sent(position, torch.int64),
            input_ids=sent(tokens, torch.int32),
            logits_indices=torch.arange(len(row), device=DEVICE),
            seq_lens=sent(self.seq_lens, torch.int32),
            seq_lens_cpu_upper_bound=torch.tensor(self.seq_lens),
            used=row * self.width + place,
        )

    def by_vllm(self):
        """What vLLM's sampler makes of it, or its rejection sampler."""
        batch = self.batch()
        logits = self.logits[batch.used]
        invalid = None
        if self.grammar is not None:
            worker = StructuredOutputsWorker.__new__(StructuredOutputsWorker)
            worker.num_bonus_tokens, worker.mask_stride = 1, self.width
            names = self.grammar.structured_output_request_ids
            worker.apply_grammar_bitmask(logits, batch, names, self.grammar.grammar_bitmask)
            invalid = grammar_invalid_drafts(batch, names, self.grammar.num_acceptable_drafts)
        if not batch.num_draft_tokens:
            return self.sampler(logits, batch), batch
        config = SimpleNamespace(
            num_speculative_tokens=self.width - 1,
            enable_adaptive_verification=False,
            rejection_sample_method="strict",
        )
        verifier = RejectionSampler(self.sampler, config, DEVICE)
        return verifier(logits, batch, None, invalid), batch

    def by_graph(self, draw: Draw, rules: Rules = Rules()) -> tuple[Drawn, Scored]:  # noqa: B008
        count, states = len(self.rows), self.sampler.sampling_states
        drawn = Drawn(
            torch.full((count, self.width), -1, device=DEVICE),
            torch.full((count,), -1, dtype=torch.int32, device=DEVICE),
            torch.full((count,), -1, dtype=torch.int32, device=DEVICE),
        )
        places = count * self.width
        scored = Scored(
            torch.zeros(places, 1 + MOST, dtype=torch.int64, device=DEVICE),
            torch.zeros(places, 1 + MOST, device=DEVICE),
            torch.zeros(places, dtype=torch.int64, device=DEVICE),
        )
        masks = GrammarMasks(count, self.width, VOCABULARY, DEVICE)
        masks.stage(self.batch(), self.grammar)
        special = special_of(self.sampler, self.states, masks.mask, masks.acceptable)
        draw_tokens(
            self.logits,
            DrawRows(
                sent(self.rows, torch.int64),
                sent(self.seq_lens, torch.int32),
                sent(self.counts, torch.int32),
                self.drafts if self.width > 1 else None,
            ),
            Wishes(
                states.temperature.gpu,
                states.top_k.gpu,
                states.top_p.gpu,
                states.seeds.gpu,
                self.states.prefill_len.gpu,
            ),
            special if draw.special else None,
            drawn,
            scored if draw.special else None,
            draw,
            rules,
        )
        return drawn, scored


def check(case: Case, draw: Draw, rules: Rules = Rules()) -> None:  # noqa: B008
    expected, batch = case.by_vllm()
    drawn, scored = case.by_graph(draw, rules)
    assert drawn.sampled.tolist() == expected.num_sampled.tolist()
    assert drawn.rejected.tolist() == expected.num_rejected.tolist()
    assert 0 in drawn.sampled.tolist()
    tokens = expected.sampled_token_ids.tolist()
    for row, count in enumerate(expected.num_sampled.tolist()):
        assert drawn.tokens[row].tolist()[:count] == tokens[row][:count]
    if expected.logprobs_tensors is None:
        return
    most = expected.logprobs_tensors.logprob_token_ids.shape[1]
    starts = batch.cu_num_logits_np
    for row, count in enumerate(expected.num_sampled.tolist()):
        theirs = slice(starts[row], starts[row] + count)
        mine = slice(row * case.width, row * case.width + count)
        ids, scores, ranks, *_ = expected.logprobs_tensors
        assert torch.equal(scored.tokens[mine, :most], ids[theirs])
        torch.testing.assert_close(scored.scores[mine, :most], scores[theirs])
        assert torch.equal(scored.ranks[mine], ranks[theirs])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("temperatures", [(0.0,), (0.0, 0.7, 1.0)], ids=("greedy", "mixed"))
def test_everything_asked_for(seed, width, temperatures):
    hot = max(temperatures) > 0
    check(Case(seed, width, True, temperatures), Draw(special=True, random=hot, filtered=hot))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("draw", [draw for draw in DRAWS if draw.random], ids=str)
def test_a_more_able_draw_changes_no_token(seed, width, draw):
    case = Case(seed, width, False, (0.0, 0.7, 1.0))
    if not draw.filtered:
        states = case.sampler.sampling_states
        states.top_k.np.fill(VOCABULARY)
        states.top_p.np.fill(1.0)
        states.apply_staged_writes()
    check(case, draw)


@pytest.mark.parametrize("draw", DRAWS, ids=str)
@pytest.mark.parametrize("width", [1, 3])
def test_greedy_requests_in_any_draw(width, draw):
    check(Case(1, width, False, (0.0,)), draw)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("draw", DRAWS, ids=str)
@pytest.mark.parametrize("width", [1, 3])
def test_of_equal_logits_the_first_is_the_most_likely(width, draw, seed):
    """Every token has a twin of the same logit: greedy requests and those of one token agree."""
    case = Case(seed, width, False, (0.0, 1.0, 2.0) if draw.filtered else (0.0,))
    half = case.logits[:, : VOCABULARY // 2].clone()
    case.logits[:] = torch.cat([half, half], dim=1)
    states = case.sampler.sampling_states
    states.top_k.np.fill(1)
    states.apply_staged_writes()
    assert (not draw.filtered) or states.temperature.np[:REQUESTS].any()
    check(case, draw)
    drawn, _ = case.by_graph(draw)
    tokens = [
        token
        for row, count in enumerate(drawn.sampled.tolist())
        for token in drawn.tokens[row].tolist()[:count]
    ]
    assert tokens
    assert max(tokens) < VOCABULARY // 2


@pytest.mark.parametrize("width", [1, 3])
def test_noise_of_64_bits(width):
    case = Case(5, width, True, (0.7, 1.0))
    case.sampler.use_fp64_gumbel = True
    check(case, DRAWS[0], Rules(fp64=True))


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize(
    ("mode", "rules"),
    [
        ("processed_logprobs", Rules(raw=False)),
        ("raw_logits", Rules(normalised=False)),
        ("processed_logits", Rules(raw=False, normalised=False)),
    ],
)
def test_scores_of_each_mode(width, mode, rules):
    case = Case(2, width, True, (0.0, 0.7, 1.0))
    case.sampler.logprobs_mode = mode
    assert case.sampler.sampling_states.num_logprobs.max() >= 0
    check(case, DRAWS[0], rules)


def test_masks_of_the_last_step_are_taken_back():
    case = Case(3, 3, True, (0.0,))
    masks = GrammarMasks(len(case.rows), 3, VOCABULARY, DEVICE)
    masks.stage(case.batch(), case.grammar)
    assert (masks.mask != -1).any()
    assert masks.acceptable.min() < 3
    masks.stage(case.batch(), None)
    assert (masks.mask == -1).all()
    assert masks.acceptable.min() > LENGTH


def test_a_grammar_ends_with_its_step_whatever_graph_is_ready():
    """Until others are compiled, the first graph draws for steps without a grammar, too."""
    case = Case(4, 1, False, (0.0,))
    count, batch = len(case.rows), case.batch()
    runner = SimpleNamespace(
        max_num_reqs=count,
        device=DEVICE,
        vocab_size=VOCABULARY,
        model_config=SimpleNamespace(max_logprobs=MOST),
        speculator=None,
        req_states=case.states,
        rejection_sampler=None,
        plan=SimpleNamespace(row_buckets=(4, count)),
        launcher=Launcher(Mode.EAGER),
        model=SimpleNamespace(compute_logits=torch.clone),
        logits_of=lambda tokens: nullcontext(),
    )
    rows = SimpleNamespace(
        state=sent(case.rows, torch.int64),
        seq_lens=sent(case.seq_lens, torch.int32),
        logits=sent(case.counts, torch.int32),
        query_start_loc=torch.zeros(count + 1, dtype=torch.int32, device=DEVICE),
        logit_token=torch.arange(count, device=DEVICE),
    )
    inputs = SimpleNamespace(
        width=1, hidden=case.logits, draft_tokens=None, rows=rows, blank=lambda: None
    )
    sampler = StepSampler(runner, case.sampler, inputs)
    assert sampler.warm_up_one()
    plain, special = GREEDY, Draw(special=True)
    free = sampler.sample(batch, plain, None).sampled_token_ids.tolist()
    assert free == case.logits.argmax(dim=-1, keepdim=True).tolist()
    bound = sampler.sample(batch, special, case._grammar()).sampled_token_ids.tolist()
    assert bound != free
    assert sampler.sample(batch, plain, None).sampled_token_ids.tolist() == free


@pytest.mark.parametrize(
    ("wish", "what"),
    [
        ({}, Asks.NOTHING),
        ({"temperature": 0.0}, Asks.NOTHING),
        ({"temperature": 0.5, "top_k": 3, "top_p": 0.5, "seed": 1}, Asks.NOTHING),
        ({"logprobs": 0}, Asks.SPECIAL),
        ({"logprobs": MOST}, Asks.SPECIAL),
        ({"min_p": 0.1}, Asks.SPECIAL),
        ({"min_tokens": 2}, Asks.SPECIAL),
        ({"repetition_penalty": 1.1}, Asks.SPECIAL),
        ({"presence_penalty": -1.0}, Asks.SPECIAL),
        ({"frequency_penalty": 0.5}, Asks.SPECIAL),
        ({"logit_bias": {1: 2.0}}, Asks.SPECIAL),
        ({"allowed_token_ids": [1]}, Asks.SPECIAL),
        ({"bad_words": ["no"]}, Asks.SPECIAL),
        ({"structured_outputs": StructuredOutputsParams(regex="a")}, Asks.SPECIAL),
        ({"logprobs": MOST + 1}, Asks.MORE),
        ({"logprobs": -1}, Asks.MORE),
        ({"thinking_token_budget": 3}, Asks.MORE),
    ],
)
def test_what_a_request_asks(wish, what):
    assert asks(SamplingParams(**wish), MOST) is what
