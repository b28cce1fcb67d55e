"""Switches of ``torch.hpu``: dynamic shapes and the inference mode.

Names: python_packages/habana_frameworks/torch/hpu/__init__.py of HabanaAI/gaudi-pytorch-bridge.
"""

from habana_frameworks.torch.core import inference
from habana_frameworks.torch.internal import bridge_config

__all__ = [
    "disable_dynamic_shape",
    "disable_inference_mode",
    "enable_dynamic_shape",
    "enable_inference_mode",
    "get_dynamic_shape_status",
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


def enable_inference_mode() -> None:
    """The same as ``core.hpu_inference_set_env()``."""
    inference.hpu_inference_set_env()


def disable_inference_mode() -> None:
    """The same as ``core.hpu_teardown_inference_env()``."""
    inference.hpu_teardown_inference_env()
