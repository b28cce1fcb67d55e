"""Make PyTorch know the device: the extension, `torch.hpu`, and what PyTorch lacks for HPU."""

from __future__ import annotations

import atexit
import warnings

import torch

from .config import Config


def register(settings: Config) -> None:
    """Register the device with PyTorch. Called once per process.

    Raises:
        ImportError: the C++ part has not been built.
        RuntimeError: another library already provides `torch.hpu`.
    """
    if hasattr(torch, "hpu"):
        raise RuntimeError("torch.hpu already exists: another library provides the HPU device")
    try:
        from . import _C
    except ImportError as e:
        raise ImportError(
            f"the C++ part of gaudi-emulator is missing or does not fit this torch "
            f"{torch.__version__} ({e}); install gaudi-emulator again in this environment"
        ) from e
    _C.activate(
        cards=len(settings.modules),
        bytes_per_card=settings.memory_bytes,
        poison=settings.poison,
        streams=settings.streams,
        check_streams=settings.check_streams,
    )
    # Queued work may need the interpreter, so it is done while there is one.
    atexit.register(_C.stop_queues)
    atexit.register(_C.disarm_faults)  # before that: what hangs goes on
    _C.set_fragmentation(settings.fragmentation)
    _C.set_check_freed(settings.check_freed)
    _C.set_check_capture(settings.check_capture)
    if settings.indices == "card":
        _C.set_card_indices(True)
    _C.set_leak_frames(settings.leak_frames)
    from . import faults, host_threads, recipes, torch_device

    faults.arm_visible(settings.faults, settings.modules)
    host_threads.use(settings.threads)
    recipes.use_compile_time(settings.device_name, settings.compile_time)
    recipes.write_files(settings.graph_files)
    torch._register_device_module("hpu", torch_device)
    if settings.modules and torch.accelerator.current_accelerator() is None:
        warnings.warn(
            "torch.accelerator was asked before the device was there, and PyTorch keeps what it "
            "was told: generators and gradients on hpu fail here, as with a card. Import "
            "habana_frameworks.torch first, or set PT_HPU_AUTOLOAD=1.",
            RuntimeWarning,
            stacklevel=2,
        )
    from .torch_device import tensor_methods

    # Backward runs in the thread that asks for it, so that a graph can capture it, and so that no
    # autograd thread is left to race with the end of the interpreter.
    torch._C._set_multithreading_enabled(False)
    tensor_methods.install()
