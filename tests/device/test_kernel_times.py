"""What kernels take, operator by operator."""

import torch
from gaudi_emulator.kernel_times import kernel_times, timed_kernels

from .conftest import emulated_only

pytestmark = emulated_only


def test_kernels_are_timed_inside_the_block_only():
    x = torch.ones(64, 64, device="hpu")
    with timed_kernels():
        _ = x + x + x
    found = {name: time for name, time in kernel_times().items() if "add" in name}
    assert sum(time.calls for time in found.values()) == 2
    assert all(time.milliseconds > 0 for time in found.values())
    _ = x + x
    assert {name: time for name, time in kernel_times().items() if "add" in name} == found
