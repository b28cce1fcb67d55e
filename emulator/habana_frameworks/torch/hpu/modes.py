"""Switches of ``torch.hpu``: dynamic shapes and the inference mode.

Names: python_packages/habana_frameworks/torch/hpu/__init__.py of HabanaAI/gaudi-pytorch-bridge.
"""

import warnings

import torch

from habana_frameworks.torch.core import inference
from habana_frameworks.torch.internal import bridge_config

__all__ = [
    "disable_dynamic_shape",
    "disable_inference_mode",
    "disable_optim_output_sif",
    "enable_dynamic_shape",
    "enable_inference_mode",
    "enable_optim_output_sif",
    "getDeterministic",
    "get_dynamic_shape_status",
    "setDeterministic",
]


def enable_dynamic_shape() -> None:
    """Set the flag PT_HPU_ENABLE_REFINE_DYNAMIC_SHAPES."""
    bridge_config.set_pt_hpu_enable_refine_dynamic_shapes(True)


def disable_dynamic_shape() -> None:
    """Clear the flag PT_HPU_ENABLE_REFINE_DYNAMIC_SHAPES."""
    bridge_config.set_pt_hpu_enable_refine_dynamic_shapes(False)


def get_dynamic_shape_status() -> bool:
    """Whether PT_HPU_ENABLE_REFINE_DYNAMIC_SHAPES is set."""
    return bridge_config.get_pt_hpu_enable_refine_dynamic_shapes()


def enable_optim_output_sif() -> None:
    """Let the card's compiler infer shapes of results faster; has no effect on what is computed.

    The emulated device knows every shape before it runs, so there is nothing to infer.
    """


def disable_optim_output_sif() -> None:
    """Undo :func:`enable_optim_output_sif`."""


def enable_inference_mode() -> None:
    """The same as ``core.hpu_inference_set_env()``."""
    inference.hpu_inference_set_env()


def disable_inference_mode() -> None:
    """The same as ``core.hpu_teardown_inference_env()``."""
    inference.hpu_teardown_inference_env()


def setDeterministic(val: bool) -> None:
    """The same as ``torch.use_deterministic_algorithms(val)``; deprecated, as on the card."""
    warnings.warn(
        "torch.hpu.setDeterministic is deprecated; use torch.use_deterministic_algorithms",
        DeprecationWarning,
        stacklevel=2,
    )
    torch.use_deterministic_algorithms(val)


def getDeterministic() -> bool:
    """The same as ``torch.are_deterministic_algorithms_enabled()``; deprecated, too."""
    warnings.warn(
        "torch.hpu.getDeterministic is deprecated; use torch.are_deterministic_algorithms_enabled",
        DeprecationWarning,
        stacklevel=2,
    )
    return torch.are_deterministic_algorithms_enabled()
