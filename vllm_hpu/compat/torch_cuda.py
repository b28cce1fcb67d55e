"""Point the ``torch.cuda`` stream and event names that vLLM's runner uses at the device.

Replaces: ``torch.cuda.{Stream,Event,stream,current_stream,default_stream,set_stream}`` and the
stream that ``vllm.utils.torch_utils`` remembers.
Reason: model runner V2 names ``torch.cuda`` directly (vLLM does the same for XPU,
vllm/v1/worker/xpu_model_runner.py). Only in a process that drives a Gaudi card.
Unnecessary when: the runner uses ``torch.Stream`` / ``current_platform``.
"""

import functools
from typing import Any

import torch


@functools.cache  # once per process
def install() -> None:
    """Put the device's classes and functions in place of those of ``torch.cuda``."""

    def make_event(*args: Any, blocking: bool | None = None, **kwargs: Any) -> Any:
        # Events of the bridge have no blocking flag; waiting for one never spins.
        return torch.hpu.Event(*args, **kwargs)

    def default_stream(device: Any = None) -> Any:
        return torch.hpu.default_stream(device)

    def current_stream(device: Any = None) -> Any:
        return torch.hpu.current_stream(device)

    def set_stream(stream: Any) -> None:
        torch.hpu.set_stream(stream)

    def use_stream(stream: Any) -> Any:
        return torch.hpu.stream(stream)

    torch.cuda.Stream = torch.hpu.Stream
    torch.cuda.Event = make_event
    torch.cuda.default_stream = default_stream
    torch.cuda.current_stream = current_stream
    torch.cuda.set_stream = set_stream
    torch.cuda.stream = use_stream
