"""Preparation of the bridge and of a model for inference.

On the card these calls switch the graph compiler's inference mode on and mark weights as
constants, so that it can fold them. There is no graph compiler here: the state is kept and can be
asked for, results are the same. Names: python_packages/habana_frameworks/torch/core/quantization.py
of HabanaAI/gaudi-pytorch-bridge.
"""

import warnings

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
    "mark_constants",
]


class _State:
    inference_mode = False
    constants: tuple[str, ...] = ()


def is_inference_mode() -> bool:
    """Whether ``hpu_inference_set_env`` is in force."""
    return _State.inference_mode


def constant_tensor_names() -> tuple[str, ...]:
    """Names of the tensors marked as constants, of all models."""
    return _State.constants


def hpu_inference_set_env(model: torch.nn.Module | None = None) -> torch.nn.Module | None:
    """Switch the inference mode on, before the model moves to the device.

    Args:
        model: on the host and in evaluation mode: each of its 2-d convolutions that is followed by
            a batch norm is to be fused with it.

    Returns:
        a fused copy of ``model``; ``model`` itself, with a warning, if it cannot be fused.
    """
    _State.inference_mode = True
    return None if model is None else _fused(model)


def _fused(model: torch.nn.Module) -> torch.nn.Module:
    # Importing it brings deprecation warnings of torch.jit.
    from torch.fx.experimental.optimization import fuse

    if model.training:
        why = "it is in training mode; call model.eval() first"
    elif any(parameter.device.type != "cpu" for parameter in model.parameters()):
        why = "it is not on the host; call this before model.to('hpu')"
    else:
        try:
            return fuse(model)
        except torch.fx.proxy.TraceError as error:
            why = f"torch.fx cannot trace it ({error})"
    warnings.warn(f"convolutions and batch norms of the model are not fused: {why}", stacklevel=3)
    return model


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
    mark_constants(model, mark_only_scales_as_const)


def mark_constants(model: torch.nn.Module, only_scales: bool) -> tuple[str, ...]:
    """Mark tensors of ``model.state_dict()``, those with ``scale`` in their name or all.

    Returns:
        their names.
    """
    names = tuple(name for name in model.state_dict() if "scale" in name or not only_scales)
    _State.constants = tuple(dict.fromkeys(_State.constants + names))
    return names


hpu_initialize = hpu_inference_initialize
"""Older name of :func:`hpu_inference_initialize`."""
