"""Streams and events: identity, order, timing."""

import time

import pytest
import torch


def test_streams_have_an_identity():
    one, two = torch.hpu.Stream(), torch.hpu.Stream()
    default = torch.hpu.default_stream()
    assert len({s.stream_id for s in (one, two, default)}) == 3
    assert one != two
    assert torch.hpu.current_stream() == default


def test_the_current_stream_follows_contexts_of_either_kind():
    stream, default = torch.hpu.Stream(), torch.hpu.current_stream()
    with torch.hpu.stream(stream):
        assert torch.hpu.current_stream() == stream
        with stream:
            assert torch.hpu.current_stream() == stream
    assert torch.hpu.current_stream() == default
    with torch.hpu.stream(None):
        assert torch.hpu.current_stream() == default


def test_set_stream_also_sets_the_card():
    before = torch.hpu.current_stream()
    try:
        torch.hpu.set_stream(torch.hpu.Stream(device=1))
        assert torch.hpu.current_device() == 1
    finally:
        torch.hpu.set_stream(before)
    assert torch.hpu.current_device() == 0


def test_work_is_ordered_and_finished():
    side, x = torch.hpu.Stream(), torch.zeros(3, device="hpu")
    with torch.hpu.stream(side):
        side.wait_stream(torch.hpu.default_stream())
        x.add_(1)
        done = side.record_event()
    torch.hpu.current_stream().wait_event(done)
    x.record_stream(side)
    done.synchronize()
    assert done.query()
    assert side.query()
    assert x.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "make", [torch.hpu.Event, lambda **k: torch.Event(device="hpu", **k)], ids=["hpu", "torch"]
)
def test_events_measure_milliseconds(make):
    start, end = make(enable_timing=True), make(enable_timing=True)
    start.record()
    began = time.perf_counter()
    time.sleep(0.02)
    end.record()
    elapsed = start.elapsed_time(end)
    assert 20 <= elapsed <= (time.perf_counter() - began) * 1e3 + 5


def test_elapsed_time_needs_recorded_events_with_timing():
    recorded = torch.hpu.Event(enable_timing=True)
    recorded.record()
    with pytest.raises(RuntimeError, match="record both"):
        recorded.elapsed_time(torch.hpu.Event(enable_timing=True))
    untimed = torch.hpu.Event()
    untimed.record()
    with pytest.raises(RuntimeError, match="enable_timing"):
        recorded.elapsed_time(untimed)


def test_pytorchs_own_streams_and_events():
    stream, event = torch.Stream(device="hpu"), torch.Event(device="hpu")
    event.record(stream)
    torch.hpu.Stream().wait_event(event)
    stream.wait_event(torch.hpu.current_stream().record_event())
    stream.synchronize()
    assert event.query()
    with stream:
        assert torch.hpu.current_stream().stream_id == stream.stream_id
    with pytest.raises(RuntimeError, match="needs an hpu stream"):
        torch.ones(2, device="hpu").record_stream(torch.Stream(device="cpu"))


def test_the_accelerator_is_the_card():
    accelerator = torch.accelerator
    assert accelerator.is_available()
    assert accelerator.current_accelerator() == torch.device("hpu")
    assert accelerator.device_count() == torch.hpu.device_count()
    with accelerator.device_index(1):
        assert accelerator.current_device_index() == torch.hpu.current_device() == 1
    assert accelerator.current_stream() == torch.hpu.current_stream()
    accelerator.synchronize()
    accelerator.empty_cache()
