"""Streams, events and questions about the device in code that Dynamo traces: no graph break."""

import pytest
import torch
from habana_frameworks.torch import hpu
from habana_frameworks.torch.utils import internal

from .conftest import emulated_only

pytestmark = emulated_only


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No compiled code from other tests, and the mode that the backend needs."""
    monkeypatch.setattr(internal._Mode, "lazy", False)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(function):
    return torch.compile(function, backend="hpu_backend", fullgraph=True)


def on_another_stream(x):
    x = x * 5
    other, current = torch.hpu.Stream(), torch.hpu.current_stream()
    other.wait_stream(current)
    with torch.hpu.stream(other):
        x = torch.relu(x)
    current.wait_stream(other)
    return x + 1


def with_events(x):
    x = x * 5
    other, current = torch.hpu.Stream(), torch.hpu.current_stream()
    other.wait_event(current.record_event())
    with torch.hpu.stream(other):
        x = torch.relu(x)
    event = torch.hpu.Event()
    event.record(other)
    event.wait(current)
    return x + 1


@pytest.mark.parametrize("function", [on_another_stream, with_events])
def test_streams_are_part_of_the_graph(function):
    x = torch.randn(4, device="hpu")
    run = compiled(function)
    for _ in range(3):
        torch.testing.assert_close(run(x).cpu(), torch.relu(x.cpu() * 5) + 1)


def test_a_stream_made_outside_and_gradients():
    def function(x, stream):
        with torch.hpu.stream(stream):
            y = x * x
        torch.hpu.current_stream().wait_stream(stream)
        return y.sum()

    x = torch.randn(4, device="hpu", requires_grad=True)
    compiled(function)(x, torch.hpu.Stream()).backward()
    torch.testing.assert_close(x.grad.cpu(), 2 * x.detach().cpu())


def test_questions_about_the_device_are_answered():
    def function(x):
        if not torch.hpu.is_available() or torch.hpu.get_device_name() == "H100":
            return x
        return x + torch.hpu.device_count() + 10 * torch.hpu.current_device()

    x = torch.zeros(1, device="hpu")
    expected = torch.hpu.device_count() + 10 * torch.hpu.current_device()
    assert compiled(function)(x).item() == expected


def test_index_of_a_card():
    index = hpu._utils._get_device_index
    assert index(3) == index("hpu:3") == index(torch.device("hpu", 3)) == 3
    assert index(None, optional=True) == index("hpu", optional=True) == hpu.current_device()
    assert index("cpu", allow_cpu=True) == -1
    for wrong in (None, "hpu", "cpu"):
        with pytest.raises(ValueError, match="hpu device"):
            index(wrong)

    def function(x):
        return x * index(torch.device("hpu", 3))

    assert compiled(function)(torch.ones(1, device="hpu")).item() == 3
