"""Copies between host and cards: values, counting, pinned memory."""

import pytest
import torch

from .conftest import counted, emulated_only


def test_values_survive_the_way_there_and_back():
    host = torch.arange(10, dtype=torch.int32).view(2, 5).t()
    card = host.to("hpu")
    assert torch.equal(card.cpu(), host)
    assert torch.equal(card.to("hpu:1").cpu(), host)
    target = torch.zeros(5, 2, dtype=torch.int64)
    assert torch.equal(target.copy_(card), host.long())
    card.copy_(host + 1)
    assert torch.equal(card.cpu(), host + 1)


@emulated_only
def test_copies_are_counted_with_their_bytes():
    host = torch.ones(256)
    with counted() as happened:
        card = host.to("hpu")
        card.cpu()
        card.clone()
        card.to("hpu:1")
    assert (happened.h2d_copies, happened.h2d_bytes) == (1, 1024)
    assert (happened.d2h_copies, happened.d2h_bytes) == (1, 1024)
    assert (happened.d2d_copies, happened.d2d_bytes) == (2, 2048)
    assert happened.host_syncs == 1


@emulated_only
@pytest.mark.parametrize("pinned", [True, False])
def test_only_a_blocking_copy_to_the_host_waits(pinned):
    card = torch.ones(4, device="hpu")
    with counted() as happened:
        torch.empty(4, pin_memory=pinned).copy_(card, non_blocking=True)
    assert (happened.d2h_copies, happened.host_syncs) == (1, 0)
    with counted() as happened:
        torch.empty(4, pin_memory=pinned).copy_(card)
    assert (happened.d2h_copies, happened.host_syncs) == (1, 1)


def test_pinned_memory():
    host = torch.arange(6.0).view(2, 3).t()
    pinned = host.pin_memory()
    assert pinned.is_pinned()
    assert pinned[1:].is_pinned()
    assert not host.is_pinned()
    assert torch.equal(pinned, host)
    assert pinned.pin_memory().data_ptr() == pinned.data_ptr()
    assert torch.zeros(3, pin_memory=True).is_pinned()
    assert torch.equal(pinned.to("hpu", non_blocking=True).cpu(), host)


def test_a_card_tensor_cannot_be_pinned():
    with pytest.raises(RuntimeError, match="pin"):
        torch.empty(3, device="hpu", pin_memory=True)
    with pytest.raises((RuntimeError, NotImplementedError), match="pin"):
        torch.ones(3, device="hpu").pin_memory()


def test_numpy_refuses_a_card_tensor():
    with pytest.raises(TypeError, match="hpu:0 device type tensor to numpy"):
        torch.ones(2, device="hpu").numpy()
