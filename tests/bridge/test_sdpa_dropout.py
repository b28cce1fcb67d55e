"""Dropout of fused attention, with the mask it used, against autograd in float64."""

import pytest
import torch
from habana_frameworks.torch._ops.sdpa_dropout import keep_mask
from habana_frameworks.torch.hpex.kernels import FusedSDPA
from hypothesis import given, settings
from hypothesis import strategies as st

SCALE = 0.3


def inputs(heads: tuple[int, int], queries: int, keys: int, seed: int) -> list[torch.Tensor]:
    """Queries, keys, values and a gradient of the output."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((2, heads[0], queries, 8), (2, heads[1], keys, 8), (2, heads[1], keys, 6))
    return [torch.randn(*shape, generator=g) for shape in (*shapes, (2, heads[0], queries, 6))]


def plain(q, k, v, kept, p):
    """Softmax, then dropout by ``kept``, then the values."""
    repeat = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(repeat, dim=1) for t in (k, v))
    weights = (torch.einsum("bhqd,bhkd->bhqk", q, k) * SCALE).softmax(-1)
    return torch.einsum("bhqk,bhkd->bhqd", weights * kept.double() / (1 - p), v)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(4, 4), (4, 2), (4, 1)]),
    st.integers(2, 6),
    st.integers(1, 7),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_output_and_gradients(heads, queries, keys, p, recompute, seed):
    *values, grad = inputs(heads, queries, keys, seed)
    on_card = [t.to("hpu").requires_grad_() for t in values]
    torch.hpu.manual_seed(seed)
    if recompute:
        out = FusedSDPA.apply(*on_card, None, p, False, SCALE, "none", True)
        torch.hpu.manual_seed(seed)
        shape = (2, heads[0], queries, keys)
        drawn = torch.randint(0, 2**31 - 1, (1,), dtype=torch.int32, device="hpu")
        kept = keep_mask(drawn, shape, p)
    else:
        out, kept = FusedSDPA.apply(
            *on_card, None, p, False, SCALE, "none", False, None, "left", True
        )
        kept = kept.reshape(2, heads[0], queries, keys)
    out.backward(grad.to("hpu"))
    exact = [t.double().requires_grad_() for t in values]
    expected = plain(*exact, kept.cpu(), p)
    expected.backward(grad.double())
    for actual, wanted in zip(
        (out, *(t.grad for t in on_card)), (expected, *(t.grad for t in exact)), strict=True
    ):
        torch.testing.assert_close(
            actual.detach().cpu().double(), wanted.detach(), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("p", [0.1, 0.5, 0.75])
def test_the_share_that_is_kept(p):
    seed = torch.tensor([12345], dtype=torch.int32, device="hpu")
    kept = keep_mask(seed, (64, 64, 64), p).cpu()
    assert abs(kept.double().mean().item() - (1 - p)) < 0.005
    # Neighbours, rows and planes do not correlate: a mean of products that is ten times what chance
    # gives 262,144 independent draws would show.
    flat = kept.flatten().double() - (1 - p)
    for lag in (1, 2, 64, 4096):
        assert abs((flat[:-lag] * flat[lag:]).mean().item()) < 0.005 * p * (1 - p) * 4
    other = keep_mask(seed + 1, (64, 64, 64), p).cpu().flatten().double() - (1 - p)
    assert abs((flat * other).mean().item()) < 0.005


def test_a_draw_follows_the_generator_of_the_card():
    q = torch.randn(1, 2, 8, 8, device="hpu")

    def out(seed: int) -> torch.Tensor:
        torch.hpu.manual_seed(seed)
        return FusedSDPA.apply(q, q, q, None, 0.5).cpu()

    assert torch.equal(out(1), out(1))
    assert not torch.equal(out(1), out(2))


def test_a_probability_is_checked():
    q = torch.randn(1, 2, 8, 8, device="hpu")
    with pytest.raises(ValueError, match="must be in \\[0, 1\\]"):
        FusedSDPA.apply(q, q, q, None, 1.5)
