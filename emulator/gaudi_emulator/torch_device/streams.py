"""Streams and events of the cards."""

from __future__ import annotations

from typing import Any

import torch

from gaudi_emulator import _C

from .devices import card_index


class Stream(torch.Stream):
    """A queue of work on one card; work on one stream runs in order."""

    def __new__(cls, device: Any = None, priority: int = 0, **kwargs: Any) -> Stream:
        if "stream_id" in kwargs:
            return super().__new__(cls, priority=priority, **kwargs)
        index = card_index(device)
        return super().__new__(cls, device=torch.device("hpu", index), priority=priority)

    def id(self) -> int:
        """Number of this stream on its card; the default stream is 0."""
        return self.stream_id

    def wait_event(self, event: torch.Event) -> None:
        """Let later work on this stream start after `event`."""
        event.wait(self)

    def wait_stream(self, stream: torch.Stream) -> None:
        """Let later work on this stream start after what is on `stream` now."""
        self.wait_event(stream.record_event())

    def record_event(self, event: torch.Event | None = None) -> torch.Event:
        """Record `event`, or a new one, after the work on this stream, and return it."""
        if event is None:
            event = Event()
        event.record(self)
        return event

    def __enter__(self) -> Stream:
        self._context = StreamContext(self)
        self._context.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._context.__exit__(*exc)

    def __repr__(self) -> str:
        return f"torch.hpu.Stream(device={self.device}, stream_id={self.stream_id})"


class Event(torch.Event):
    """A point in a stream's work that the host or other streams can wait for."""

    def __new__(
        cls, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> Event:
        if interprocess:
            raise ValueError("interprocess events are not supported on the HPU device")
        return super().__new__(cls, device="hpu", enable_timing=enable_timing, blocking=blocking)

    def record(self, stream: torch.Stream | None = None) -> None:
        """Record this event on `stream`, or on the current stream."""
        super().record(current_stream() if stream is None else stream)

    def wait(self, stream: torch.Stream | None = None) -> None:
        """Let later work on `stream`, or on the current stream, start after this event."""
        super().wait(current_stream() if stream is None else stream)

    def elapsed_time(self, end_event: torch.Event) -> float:
        """Milliseconds between two recorded events made with `enable_timing=True`."""
        # PyTorch's own method takes no subclass of torch.Event.
        return _C.elapsed_ms(self.event_id, end_event.event_id)

    def __repr__(self) -> str:
        return f"torch.hpu.Event(device={self.device})"


def _stream(index: int, stream_id: int) -> Stream:
    return Stream(stream_id=stream_id, device_index=index, device_type=_C.device_type)


def current_stream(device: Any = None) -> Stream:
    """Return the calling thread's current stream on the card."""
    index = card_index(device)
    return _stream(index, _C.current_stream(index))


def default_stream(device: Any = None) -> Stream:
    """Return the stream that is current when none was set."""
    return _stream(card_index(device), 0)


def set_stream(stream: torch.Stream | None) -> None:
    """Make `stream` and its card current in the calling thread; None changes nothing."""
    if stream is None:
        return
    if stream.device.type != "hpu":
        raise ValueError(f"expected an hpu stream, got one on {stream.device}")
    index = card_index(stream.device)
    _C.set_current_card(index)
    _C.set_current_stream(index, stream.stream_id)


class StreamContext:
    """Context in which another stream is current; None changes nothing."""

    def __init__(self, stream: torch.Stream | None) -> None:
        self.stream = stream
        self._before: list[tuple[int, int]] = []

    def __enter__(self) -> StreamContext:
        if self.stream is not None:
            card = _C.current_card()
            target = card_index(self.stream.device)
            self._before = [(target, _C.current_stream(target)), (card, _C.current_stream(card))]
            set_stream(self.stream)
        return self

    def __exit__(self, *exc: object) -> None:
        for index, stream_id in self._before:
            _C.set_current_card(index)
            _C.set_current_stream(index, stream_id)
        self._before = []


def stream(stream: torch.Stream | None) -> StreamContext:
    """Return a context in which `stream` is current."""
    return StreamContext(stream)
