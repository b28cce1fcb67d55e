"""What keeps an operator cheap: no copies, one allocation, no detour. Timing: benchmarks/."""

import torch

from .conftest import counted, emulated_only

pytestmark = emulated_only


def test_device_bytes_are_the_host_bytes():
    from gaudi_emulator import _C

    card = torch.arange(4.0, device="hpu")
    host = _C.host_view(card)
    assert host.is_cpu
    assert host.data_ptr() == card.data_ptr()
    host.mul_(2)
    assert card.tolist() == [0, 2, 4, 6]
    back = _C.device_view(host, 1)
    assert back.device == torch.device("hpu:1")
    assert back.data_ptr() == card.data_ptr()


def test_a_result_is_adopted_with_one_allocation():
    x = torch.ones(64, device="hpu")
    before = torch.hpu.memory_stats()
    y = x + x
    after = torch.hpu.memory_stats()
    assert after["NumAllocs"] - before["NumAllocs"] == 1
    assert after["TotalAlloc"] - before["TotalAlloc"] == y.nbytes


def test_structured_operators_run_without_their_decomposition():
    x = torch.ones(4, 4, device="hpu")
    with counted() as happened:
        torch.add(x, x)
        x.add_(x)
        torch.mm(x, x)
        torch.softmax(x, -1)
        torch.cat([x, x])
        x.sum(-1)
    assert happened.eager_launches == 6
