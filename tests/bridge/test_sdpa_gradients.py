"""Gradients of ``FusedSDPA`` against autograd of a plain softmax in float64."""

import pytest
import torch
from habana_frameworks.torch.hpex.kernels import FusedSDPA
from habana_frameworks.torch.utils.internal import _Mode
from hypothesis import given, settings
from hypothesis import strategies as st

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2}


def plain(q, k, v, mask, causal, scale):
    repeat = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(repeat, dim=1) for t in (k, v))
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * scale
    if mask is not None:
        scores = scores + mask
    if causal:
        hidden = torch.ones(scores.shape[-2:]).tril() == 0
        scores = scores.masked_fill(hidden, -torch.inf)
    return torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from([(4, 4), (4, 2), (6, 2), (4, 1)]),
    st.integers(2, 6),
    st.integers(1, 7),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_gradients(dtype, heads, queries, keys, causal, masked, recompute, seed):
    g = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=g).to(dtype)

    if causal:
        keys = queries
    q, k = random(2, heads[0], queries, 8), random(2, heads[1], keys, 8)
    v, grad = random(2, heads[1], keys, 6), random(2, heads[0], queries, 6)
    mask = random(2, 1, queries, keys) if masked and not causal else None
    exact = [t.double().requires_grad_() for t in (q, k, v)]
    expected = plain(*exact, None if mask is None else mask.double(), causal, 0.3)
    expected.backward(grad.double())
    on_card = [t.to("hpu").requires_grad_() for t in (q, k, v)]
    out = FusedSDPA.apply(
        *on_card, None if mask is None else mask.to("hpu"), 0.0, causal, 0.3, "none", recompute
    )
    out.backward(grad.to("hpu"))
    tolerance = TOLERANCE[dtype]
    for actual, wanted in zip(
        (out, *(t.grad for t in on_card)), (expected, *(t.grad for t in exact)), strict=True
    ):
        assert actual.dtype == dtype
        error = (actual.detach().cpu().double() - wanted.detach()).norm()
        assert error <= tolerance * wanted.detach().norm() + tolerance


def test_what_has_no_gradient_is_refused():
    q = torch.randn(1, 2, 4, 8, device="hpu", requires_grad=True)
    mask = torch.zeros(1, 1, 4, 4, device="hpu", requires_grad=True)
    lengths = torch.tensor([3], dtype=torch.int32, device="hpu")
    out = FusedSDPA.apply(q, q, q, mask)
    with pytest.raises(NotImplementedError, match="attn_mask gets no gradient"):
        out.sum().backward()
    out = FusedSDPA.apply(q, q, q, None, 0.0, True, None, "None", True, lengths)
    with pytest.raises(ValueError, match="are for inference"):
        out.sum().backward()


def test_probabilities_come_with_gradients_of_the_output():
    q = torch.randn(1, 2, 4, 8, device="hpu", requires_grad=True)
    out, probabilities = FusedSDPA.apply(
        q, q, q, None, 0.0, False, None, "None", False, None, "left", False, True
    )
    assert not probabilities.requires_grad
    out.sum().backward()
    assert q.grad.isfinite().all().item()


@pytest.mark.parametrize("recompute", [False, True])
def test_a_compiled_step_of_training(monkeypatch, recompute):
    monkeypatch.setattr(_Mode, "lazy", False)

    def attend(q):  # Dynamo wants a tensor only once among the inputs
        return FusedSDPA.apply(q, q * 1.0, q * 1.0, None, 0.0, True, 0.3, "none", recompute)

    values = torch.randn(1, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    exact = values.double().requires_grad_()
    plain(exact, exact, exact, None, True, 0.3).sum().backward()
    q = values.to("hpu").requires_grad_()
    torch.compile(attend, backend="hpu_backend", fullgraph=True)(q).sum().backward()
    torch.testing.assert_close(q.grad.cpu().double(), exact.grad, rtol=1e-4, atol=1e-4)
