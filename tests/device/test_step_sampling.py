"""A step's draw in one launch, against vLLM's sampler, operator by operator."""

import habana_frameworks.torch  # noqa: F401
import pytest
import torch

from vllm_hpu.runner.kernels import register

register()

from vllm import SamplingParams  # noqa: E402
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p  # noqa: E402
from vllm.v1.worker.gpu.sample.gumbel import gumbel_sample  # noqa: E402

from vllm_hpu.runner.sampling import Drawn, Wishes, draw_tokens, is_simple  # noqa: E402

STATES, VOCABULARY = 9, 300


def on_device(values, dtype) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device="hpu")


def wishes(filtered: bool) -> Wishes:
    return Wishes(
        on_device([0.0, 0.7, 1.0, 1.3] * 2 + [0.0], torch.float32),
        on_device([VOCABULARY, 20, 5, 1] * 2 + [VOCABULARY], torch.int32)
        if filtered
        else on_device([VOCABULARY] * STATES, torch.int32),
        on_device([1.0, 0.9, 1.0, 0.5] * 2 + [1.0], torch.float32)
        if filtered
        else on_device([1.0] * STATES, torch.float32),
        on_device([11 * i for i in range(STATES)], torch.int64),
        on_device([10] * 7 + [50, 0], torch.int32),
    )


def draw(logits, state, seq_lens, wish, **kind) -> Drawn:
    drawn = Drawn(
        torch.full((len(state), 1), -1, dtype=torch.int64, device="hpu"),
        torch.full((len(state),), -1, dtype=torch.int32, device="hpu"),
        torch.zeros(len(state), dtype=torch.int32, device="hpu"),
    )
    draw_tokens(logits, state, seq_lens, wish, drawn, **kind)
    return drawn


@pytest.mark.parametrize("fp64", [False, True])
@pytest.mark.parametrize("filtered", [False, True])
def test_tokens_are_those_of_vllms_sampler(filtered, fp64):
    torch.manual_seed(3)
    logits = (3 * torch.randn(STATES, VOCABULARY)).to("hpu")
    state = on_device([3, 1, 0, 2, 5, 4, 7, 6, 8], torch.int64)
    seq_lens = on_device([12, 40, 11, 33, 20, 21, 22, 23, 0], torch.int32)
    wish = wishes(filtered)
    temperature = wish.temperature[state]
    scores = logits / torch.where(temperature == 0, 1.0, temperature)[:, None]
    if filtered:
        scores = apply_top_k_top_p(scores, wish.top_k[state], wish.top_p[state])
    expected = gumbel_sample(
        scores,
        state,
        wish.temperature,
        wish.seeds,
        (seq_lens - 1).clamp_min(0).long(),
        apply_temperature=False,
        is_drafting=False,
        use_fp64=fp64,
    )
    drawn = draw(logits, state, seq_lens, wish, random=True, filtered=filtered, fp64=fp64)
    assert drawn.tokens.view(-1).tolist() == expected.tolist()


def test_greedy_rows_and_rows_without_a_token():
    torch.manual_seed(4)
    logits = torch.randn(4, VOCABULARY).to("hpu")
    # A full prompt, a part of one, one token more, a padding row.
    state = on_device([0, 7, 1, 8], torch.int64)
    seq_lens = on_device([10, 49, 11, 0], torch.int32)
    drawn = draw(logits, state, seq_lens, wishes(False), random=False, filtered=False, fp64=False)
    assert drawn.tokens.view(-1).tolist() == logits.argmax(-1).tolist()
    assert drawn.sampled.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("wish", "simple"),
    [
        ({}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": 0.5, "top_k": 3, "top_p": 0.5, "seed": 1}, True),
        ({"logprobs": 0}, False),
        ({"min_p": 0.1}, False),
        ({"min_tokens": 2}, False),
        ({"repetition_penalty": 1.1}, False),
        ({"presence_penalty": -1.0}, False),
        ({"frequency_penalty": 0.5}, False),
        ({"logit_bias": {1: 2.0}}, False),
        ({"allowed_token_ids": [1]}, False),
        ({"bad_words": ["no"]}, False),
    ],
)
def test_only_simple_wishes_are_drawn_here(wish, simple):
    assert is_simple(SamplingParams(**wish)) is simple
