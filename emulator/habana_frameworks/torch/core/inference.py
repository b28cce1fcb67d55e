"""Preparation of the bridge and of a model for inference.

On the card these calls switch the graph compiler's inference mode on and mark weights as
constants, so that it can fold them. There is no graph compiler here: the state is kept and can be
asked for, results are the same. Names: python_packages/habana_frameworks/torch/core/quantization.py
of HabanaAI/gaudi-pytorch-bridge.
"""

import torch

__all__ = [
    "constant_tensor_names",
    "hpu_inference_initialize",
    "hpu_inference_set_env",
    "hpu_initialize",
    "hpu_reset_env",
    "hpu_set_env",
    "hpu_set_inference_env",
    "hpu_teardown_inference_env",
    "is_inference_mode",
]


class _State:
    inference_mode = False
    constants: tuple[str, ...] = ()


def is_inference_mode() -> bool:
    """Whether ``hpu_inference_set_env`` is in force."""
    return _State.inference_mode


def constant_tensor_names() -> tuple[str, ...]:
    """Names of the tensors that the last initialisation marked as constants."""
    return _State.constants


def hpu_inference_set_env(model: torch.nn.Module | None = None) -> torch.nn.Module | None:
    """Switch the inference mode on, before the model moves to the device.

    Args:
        model: a model whose convolutions shall be fused with batch norms; refused, since that is
            a rewrite the emulated bridge does not have.
    """
    if model is not None:
        raise NotImplementedError(
            "hpu_inference_set_env(model): the emulated bridge does not fuse convolutions with "
            "batch norms; call it without a model"
        )
    _State.inference_mode = True
    return None


hpu_set_inference_env = hpu_inference_set_env
"""Name of :func:`hpu_inference_set_env` in release 1.19."""

hpu_set_env = hpu_inference_set_env
"""Older name of :func:`hpu_inference_set_env`."""


def hpu_teardown_inference_env() -> None:
    """Undo :func:`hpu_inference_set_env`."""
    _State.inference_mode = False
    _State.constants = ()


hpu_reset_env = hpu_teardown_inference_env
"""Older name of :func:`hpu_teardown_inference_env`."""


def hpu_inference_initialize(
    model: torch.nn.Module | None = None,
    mark_only_scales_as_const: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
    args: object = None,
) -> None:
    """Mark the tensors of a model, already on the device, as constants.

    Args:
        model: its ``state_dict`` names the tensors.
        mark_only_scales_as_const: only those with ``scale`` in their name.
        optimizer, args: accepted as in the bridge's signature; inference has neither.

    Raises:
        ValueError: an optimizer or args are given.
    """
    if optimizer is not None or args is not None:
        raise ValueError("hpu_inference_initialize: optimizer and args have no meaning here")
    if model is None:
        return
    names = []
    for name in model.state_dict():
        if mark_only_scales_as_const and "scale" not in name:
            continue
        names.append(name)
    _State.constants = tuple(names)


hpu_initialize = hpu_inference_initialize
"""Older name of :func:`hpu_inference_initialize`."""
