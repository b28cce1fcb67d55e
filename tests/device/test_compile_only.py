"""PT_COMPILE_ONLY_MODE: graphs are compiled and get their memory; nothing is launched or read."""

import pytest
import torch
from habana_frameworks.torch.internal import bridge_config
from habana_frameworks.torch.utils import internal

from .conftest import ON_CARD, counted, emulated_only

if not ON_CARD:
    from gaudi_emulator.graph import Graph

pytestmark = emulated_only


@pytest.fixture
def compile_only():
    with bridge_config.env_setting("PT_COMPILE_ONLY_MODE", True):
        yield
    assert bridge_config.get_pt_compile_only_mode() is False


def captured(state):
    graph = Graph()
    graph.capture_begin()
    result = (state.add_(1) * 2).sum()
    graph.capture_end()
    return graph, result


def test_a_capture_is_compiled_and_planned_but_not_replayed(compile_only):
    state = torch.zeros(1024, device="hpu")
    with counted() as happened:
        graph, result = captured(state)
        graph.replay()
        graph.replay()
    assert happened.compilations == {"graph_capture": 1}
    assert happened.launches == 0
    assert graph.workspace_bytes >= 1024 * 4
    bridge_config.set_pt_compile_only_mode(False)
    before = state.clone()
    with counted() as happened:
        graph.replay()
    assert torch.equal(state, before + 1)
    assert result.item() == 2 * state.sum().item()
    assert happened.graph_launches == 1


def test_a_region_is_compiled_and_not_launched(compile_only, monkeypatch):
    monkeypatch.setattr(internal._Mode, "lazy", False)
    torch._dynamo.reset()
    run = torch.compile(lambda x: torch.relu(x) + 1, backend="hpu_backend", dynamic=False)
    x = torch.ones(3, device="hpu")
    with counted() as happened, torch.no_grad():
        assert run(x).shape == (3,)
    assert happened.compilations == {"hpu_backend": 1}
    assert happened.launches == 0
    bridge_config.set_pt_compile_only_mode(False)
    with counted() as happened, torch.no_grad():
        assert run(x).tolist() == [2, 2, 2]
    assert happened.compilations == {}
    assert happened.region_launches == 1
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: bool((x > 0).any()),
        lambda x: x.nonzero(),
        lambda x: torch.empty(3).copy_(x),
    ],
    ids=["item", "cpu", "tolist", "bool", "nonzero", "copy_"],
)
def test_a_value_cannot_be_read_on_the_host(compile_only, read):
    x = torch.ones(3, device="hpu")
    with pytest.raises(RuntimeError, match="PT_COMPILE_ONLY_MODE"):
        read(x)


def test_waiting_for_the_device_is_no_read(compile_only):
    torch.hpu.synchronize()
    torch.hpu.current_stream().record_event().synchronize()
