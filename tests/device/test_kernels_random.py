"""Random draws: right distribution, reproducible, independent of the rest of the batch."""

from types import SimpleNamespace

import habana_frameworks.torch  # noqa: F401
import numpy as np
import pytest
import torch

from vllm_hpu.kernels import register

register()

from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p  # noqa: E402
from vllm.v1.worker.gpu.sample.gumbel import gumbel_sample  # noqa: E402
from vllm.v1.worker.gpu.sample.sampler import Sampler  # noqa: E402

from vllm_hpu.kernels.rejection import Drafts  # noqa: E402

# Chi-square value exceeded once in a million times, by degrees of freedom.
RARE = {7: 40.5, 15: 55.8, 63: 132.0}


def chi_square(tokens: torch.Tensor, probabilities: torch.Tensor) -> float:
    counts = torch.bincount(tokens.cpu(), minlength=len(probabilities)).double()
    expected = probabilities.double().cpu() * len(tokens)
    return float(((counts - expected) ** 2 / expected).sum())


def draw(logits, seeds, positions, temperature=1.0, **options):
    """One token per row; logits [V] or [N, V], seeds and positions [N]."""
    rows = len(seeds)
    logits = torch.as_tensor(logits).expand(rows, -1).contiguous().to("hpu")
    return gumbel_sample(
        logits,
        torch.arange(rows, device="hpu"),
        torch.full((rows + 1,), temperature, device="hpu"),
        torch.cat([seeds, seeds[:1]]).to("hpu"),
        positions.to("hpu"),
        apply_temperature=True,
        is_drafting=False,
        **options,
    ).cpu()


@pytest.mark.parametrize("varied", ["seed", "position"])
@pytest.mark.parametrize("use_fp64", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_follow_the_distribution(varied, use_fp64, temperature):
    logits = torch.linspace(-2, 1, 8)
    count = torch.arange(20_000)
    same = torch.full_like(count, 1234)
    seeds, positions = (count, same) if varied == "seed" else (same, count)
    tokens = draw(logits, seeds, positions, temperature, use_fp64=use_fp64)
    assert chi_square(tokens, (logits / temperature).softmax(0)) < RARE[7]


def test_different_seeds_and_positions_are_independent():
    count = torch.arange(20_000)
    uniform = torch.zeros(8)
    one = draw(uniform, torch.full_like(count, 7), count)
    for other in (
        draw(uniform, torch.full_like(count, 8), count),
        draw(uniform, torch.full_like(count, 7), count + 1),
        draw(uniform, torch.full_like(count, 7 + 2**40), count),
    ):
        assert chi_square(one * 8 + other, torch.full((64,), 1 / 64)) < RARE[63]


def test_a_seeded_row_draws_the_same_in_any_batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 500, generator=generator)
    seeds = torch.randint(-(2**62), 2**62, (9,), generator=generator)
    positions = torch.arange(9) * 11
    together = draw(logits, seeds, positions)
    for row in (0, 4, 8):
        alone = draw(logits[row : row + 1], seeds[row : row + 1], positions[row : row + 1])
        assert alone[0] == together[row]
    assert torch.equal(together.flip(0), draw(logits.flip(0), seeds.flip(0), positions.flip(0)))


@pytest.mark.parametrize("per_row", [True, False])
def test_logits_cache_keeps_what_was_sampled_from(per_row):
    # Triton's interpreter cannot run this variant of vLLM's kernel.
    logits, cache = torch.randn(4, 30, device="hpu"), torch.zeros(6, 3, 35, device="hpu")
    columns = torch.tensor([1, 0, 2, 1] if per_row else 2, device="hpu")
    states = [3, -1, 0, 2]
    gumbel_sample(
        logits,
        torch.tensor(states, device="hpu"),
        torch.full((6,), 0.5, device="hpu"),
        torch.arange(6, device="hpu"),
        torch.arange(4, device="hpu"),
        apply_temperature=True,
        is_drafting=True,
        logits_cache=cache,
        logits_cache_col=columns,
    )
    expected = torch.zeros(6, 3, 35)
    for row, state in enumerate(states):
        if state >= 0:
            column = int(columns[row]) if per_row else 2
            expected[state, column, :30] = logits[row].cpu()
    assert torch.equal(cache.cpu()[:-1], expected[:-1])


@pytest.mark.parametrize("by_block", [False, True])
@pytest.mark.parametrize("certain", [False, True])
def test_verified_drafts_leave_the_target_distribution(by_block, certain):
    """The first token that comes out is distributed as if there had been no drafts."""
    rows, vocab, temperature = 20_000, 8, 0.7
    generator = torch.Generator().manual_seed(3)
    target = torch.randn(3, vocab, generator=generator)  # already divided by the temperature
    proposal = torch.randn(2, vocab, generator=generator)  # before temperature
    if certain:
        drafts = torch.randint(0, vocab, (rows, 2), generator=generator)
    else:
        proposed = (proposal / temperature).softmax(-1)
        drafts = torch.multinomial(proposed, rows, replacement=True, generator=generator).T
    tokens = torch.cat([torch.zeros(rows, 1, dtype=torch.int64), drafts], dim=1)
    sampled, count = Drafts(
        target.repeat(rows, 1).to("hpu"),
        None if certain else proposal.expand(rows + 1, -1, -1).to("hpu"),
        tokens.flatten().int().to("hpu"),
        (torch.arange(rows) * 3).to("hpu"),
        torch.full((rows,), 2, device="hpu"),
        (torch.arange(rows * 3) % 3).to("hpu"),
        torch.arange(rows, device="hpu"),
        torch.full((rows + 1,), temperature, device="hpu"),
        torch.randint(0, 2**62, (rows + 1,), generator=generator).to("hpu"),
        num_steps=2,
    ).verify(by_block)
    sampled, count = sampled.cpu(), count.cpu()
    assert chi_square(sampled[:, 0], target[0].softmax(-1)) < RARE[7]
    second = sampled[count >= 2, 1]
    assert 0 < len(second) < rows
    if not by_block:  # a block's length depends on the tokens in it
        assert chi_square(second, target[1].softmax(-1)) < RARE[7]
    for length in (1, 2, 3):
        assert (count == length).any()


def test_synthetic_rates_accept_by_chance():
    rows = 4000
    sampled, count = Drafts(
        torch.randn(rows * 2, 8).to("hpu"),
        None,
        torch.zeros(rows * 2, dtype=torch.int32, device="hpu"),
        (torch.arange(rows) * 2).to("hpu"),
        torch.ones(rows, dtype=torch.int64, device="hpu"),
        torch.arange(rows * 2, device="hpu"),
        torch.arange(rows, device="hpu"),
        torch.tensor([0.0, 1.0] * (rows // 2) + [0.0], device="hpu"),
        torch.arange(rows + 1, device="hpu"),
        num_steps=1,
        synthetic_rates=torch.tensor([0.25], device="hpu"),
    ).verify(False)
    accepted = (count.cpu() == 2).double().mean()
    assert abs(float(accepted) - 0.25) < 5 * (0.25 * 0.75 / rows) ** 0.5
    assert sampled.shape == (rows, 2)


def test_greedy_steps_need_no_noise_and_mixed_ones_keep_greedy_rows():
    logits = torch.randn(3, 40, device="hpu")
    for temperatures in ([0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]):
        values = np.array(temperatures, dtype=np.float32)
        state = SimpleNamespace(gpu=torch.tensor(values).to("hpu"), np=values)
        seeds = SimpleNamespace(gpu=torch.arange(4, device="hpu"))
        sampler = Sampler.__new__(Sampler)
        sampler.sampling_states = SimpleNamespace(temperature=state, seeds=seeds)
        sampler.use_fp64_gumbel = False
        rows = torch.arange(3, device="hpu")
        tokens, _ = sampler._sample_random(
            logits, rows, np.arange(3), rows, None, None, use_fused_sampler=False
        )
        greedy = values[:3] == 0
        assert torch.equal(tokens.cpu()[greedy], logits.argmax(-1).cpu()[greedy])


def test_top_k_and_top_p_without_triton():
    """vLLM's own torch version serves the device; it must not depend on values for its shapes."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, 60, generator=generator) * 2
    top_k = torch.tensor([60, 1, 5, 60, 7])
    top_p = torch.tensor([1.0, 1.0, 1.0, 0.3, 0.8])
    kept = apply_top_k_top_p(logits.clone().to("hpu"), top_k.int().to("hpu"), top_p.to("hpu"))
    for row in range(5):
        order = logits[row].argsort(descending=True)
        order = order[: top_k[row]]
        probabilities = logits[row][order].softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        expected = order[before < top_p[row]]
        found = kept[row].cpu().isfinite().nonzero().flatten()
        assert set(found.tolist()) == set(expected.tolist())
