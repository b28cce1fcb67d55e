"""Top-k and top-p against their definition in float64, on rows full of equal logits."""

import importlib

import habana_frameworks.torch  # noqa: F401
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_hpu.kernels import register

register()

from vllm_hpu.kernels.top_k_top_p import apply_top_k_top_p  # noqa: E402

# A sum of float32 probabilities this close to top-p may fall on either side of it.
DOUBT = 1e-6


def allowed(logits: list[float], k: int | None, p: float | None) -> list[list[int]]:
    """The tokens that may be drawn, by definition; several answers where rounding decides."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))[:k]
    if p is None:
        return [sorted(order)]
    weights = np.exp(np.array([logits[token] for token in order], dtype=np.float64) - max(logits))
    held = np.cumsum(weights / weights.sum())
    counts = {min(len(order), 1 + int((held < p + doubt).sum())) for doubt in (-DOUBT, DOUBT)}
    return [sorted(order[:count]) for count in range(min(counts), max(counts) + 1)]


# Multiples of an eighth, exact in every type; few of them, so that most have equals.
LOGITS = st.integers(-24, 24).map(lambda eighths: eighths / 8) | st.just(float("-inf"))


@st.composite
def cases(draw):
    size = draw(st.integers(2, 40))
    few = draw(st.lists(LOGITS, min_size=1, max_size=5))
    logits = draw(st.lists(st.sampled_from(few), min_size=size, max_size=size))
    logits[draw(st.integers(0, size - 1))] = draw(st.sampled_from([1.0, 3.0]))
    k = draw(st.none() | st.integers(1, size))
    p = draw(st.none() | st.sampled_from([1.0, 0.5]) | st.floats(2**-10, 1.0, width=32))
    return logits, k, p


@settings(deadline=None, max_examples=300)
@given(cases())
def test_by_definition(case):
    logits, k, p = case
    found = apply_top_k_top_p(
        torch.tensor([logits, logits], device="hpu"),
        None if k is None else torch.tensor([k, 1], dtype=torch.int32, device="hpu"),
        None if p is None else torch.tensor([p, p], device="hpu"),
    ).cpu()
    finite = [token for token, logit in enumerate(logits) if logit > float("-inf")]
    kept = found[0].isfinite().nonzero().flatten().tolist()
    assert kept in [[token for token in one if token in finite] for one in allowed(logits, k, p)]
    assert found[0][kept].tolist() == [logits[token] for token in kept]
    if k is not None:
        best = logits.index(max(logits))
        assert found[1].isfinite().nonzero().flatten().tolist() == [best]


def test_rows_of_a_large_vocabulary():
    """Equals far apart and in great numbers: a vocabulary of half-precision logits."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(6, 50_000, generator=generator).mul_(3).bfloat16().float()
    logits[5] = 0
    k = torch.tensor([50_000, 1, 7, 1000, 50_000, 40], dtype=torch.int32)
    p = torch.tensor([1.0, 1.0, 0.9, 1.0, 0.3, 0.5])
    found = apply_top_k_top_p(logits.to("hpu"), k.to("hpu"), p.to("hpu")).cpu()
    for row in range(6):
        order = np.argsort(-logits[row].double().numpy(), kind="stable")[: int(k[row])]
        kept = found[row].isfinite().nonzero().flatten().numpy()
        # Of a cumulative sum over 50,000 the last digits are anybody's; the order is not.
        assert set(kept) == set(order[: len(kept)])
        weights = torch.softmax(logits[row][order].double(), -1)
        assert weights[: len(kept)].sum() >= p[row] - 1e-4
        assert weights[: len(kept) - 1].sum() < p[row] + 1e-4
    assert found[5].isfinite().sum() == 20
    assert found[3].isfinite().sum() == 1000


@pytest.mark.parametrize(
    "module",
    [
        "vllm.v1.sample.ops.topk_topp_sampler",
        "vllm.v1.worker.gpu.sample.sampler",
        "vllm.v1.worker.gpu.sample.states",
        "vllm.v1.watermarking.gpu_sampler",
    ],
)
def test_every_sampler_of_vllm_uses_it(module):
    assert importlib.import_module(module).apply_top_k_top_p is apply_top_k_top_p
