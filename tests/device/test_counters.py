"""What the device counts: launches, host synchronisations, compilations."""

import pytest
import torch

from .conftest import counted, emulated_only

pytestmark = emulated_only


def test_one_launch_per_operator_and_none_for_views():
    x = torch.ones(4, 4, device="hpu")
    with counted() as happened:
        x.view(16)[2:].t()
        torch.empty(3, device="hpu")
    assert happened.launches == 0
    with counted() as happened:
        (x + 1) @ x
    assert happened.eager_launches == 2


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("item", lambda x: x[0].item()),
        ("tolist", lambda x: x.tolist()),
        ("cpu", lambda x: x.cpu()),
        ("nonzero", lambda x: x.nonzero()),
        ("boolean mask", lambda x: x[x > 0]),
        ("equal", lambda x: torch.equal(x, x)),
        ("synchronize", lambda x: torch.hpu.synchronize()),
        ("stream", lambda x: torch.hpu.current_stream().synchronize()),
    ],
)
def test_host_synchronisations_are_counted(name, read):
    x = torch.ones(3, device="hpu")
    with counted() as happened:
        read(x)
    assert happened.host_syncs == 1, name


def test_no_synchronisation_without_a_reason():
    x = torch.ones(3, 2, device="hpu")
    index = torch.tensor([0, 1], device="hpu")
    with counted() as happened:
        x[index] = 2.0
        x.masked_fill_(x > 1, 0.0)
        x.index_put_((x > 0,), torch.tensor(1.0))  # a number where the mask holds: static
        torch.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None])
        torch.repeat_interleave(x, torch.tensor([1, 2, 1], device="hpu"), dim=0, output_size=4)
    assert happened.host_syncs == 0


def test_a_region_is_one_launch():
    import gaudi_emulator

    x = torch.ones(3, device="hpu")
    with counted() as happened, gaudi_emulator.launch_region():
        x.add_(1).mul_(2).sum()
    assert happened.region_launches == happened.launches == 1
    assert happened.fused_ops == 3


def test_compilations_by_kind():
    import gaudi_emulator
    from gaudi_emulator import _C

    with counted() as happened:
        _C.note_compilation("hpu_backend", "x: [4, 8]", 1500)
        _C.note_compilation("hpu_backend", "x: [8, 8]", 500)
    assert happened.compilations == {"hpu_backend": 2}
    assert happened.compilation_us == {"hpu_backend": 2000}
    assert happened.total_compilations == 2
    latest = gaudi_emulator.recent_compilations(1)
    assert latest == [gaudi_emulator.Compilation("hpu_backend", "x: [8, 8]", 500)]


def test_host_reads_can_be_forbidden():
    from gaudi_emulator import _C

    x = torch.ones(1, device="hpu")
    _C.forbid_host_reads("compile-only mode does not allow")
    try:
        with pytest.raises(RuntimeError, match=r"item.*compile-only mode does not allow"):
            x.item()
        with pytest.raises(RuntimeError, match="compile-only"):
            x.cpu()
        x.add_(1)
    finally:
        _C.forbid_host_reads("")
    assert x.item() == 2.0
