"""Gradients on the card: enough for inference that forgets no_grad, and for simple training."""

import copy

import pytest
import torch
import torch.nn.functional as F


def test_gradients_equal_the_cpu():
    torch.manual_seed(0)
    host = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 3)
    )
    card = copy.deepcopy(host).hpu()
    x, target = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    F.cross_entropy(host(x), target).backward()
    F.cross_entropy(card(x.hpu()), target.hpu()).backward()
    for expected, parameter in zip(host.parameters(), card.parameters(), strict=True):
        assert parameter.grad.is_hpu
        torch.testing.assert_close(parameter.grad.cpu(), expected.grad)


def test_convolution_backward():
    torch.manual_seed(0)
    host = torch.nn.Conv1d(3, 4, 3)
    card = copy.deepcopy(host).hpu()
    x = torch.randn(2, 3, 8)
    host(x).square().sum().backward()
    card(x.hpu()).square().sum().backward()
    torch.testing.assert_close(card.weight.grad.cpu(), host.weight.grad)
    torch.testing.assert_close(card.bias.grad.cpu(), host.bias.grad)


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 1).hpu()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    x = torch.randn(32, 4, device="hpu")
    y = x.sum(-1, keepdim=True)
    losses = []
    for _ in range(20):
        loss = F.mse_loss(layer(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_a_forgotten_no_grad_is_harmless():
    layer = torch.nn.Linear(4, 4).hpu()
    cache = torch.zeros(8, 4, device="hpu")
    y = layer(torch.ones(2, 4, device="hpu"))
    assert y.requires_grad
    cache[:2] = y.detach()
    with torch.no_grad():
        y.add_(1)
        cache.index_copy_(0, torch.tensor([4, 5], device="hpu"), y)
    torch.testing.assert_close(cache[4:6], cache[:2] + 1)


def test_writing_a_leaf_that_needs_gradients_is_refused():
    leaf = torch.ones(2, device="hpu", requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf"):
        leaf.add_(1)
    assert leaf.tolist() == [1, 1]
