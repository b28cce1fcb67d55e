"""Which tensors of a model are constants of its graphs.

Names: python_packages/habana_frameworks/torch/core/quantization.py of
HabanaAI/gaudi-pytorch-bridge. The card's compiler folds constants; here the marks are kept and
can be asked for, results are the same.
"""

import torch

from habana_frameworks.torch._missing import refuse

from .inference import constant_tensor_names, mark_constants

__all__ = ["_check_params_as_const", "_get_marked_const_count", "_mark_params_as_const"]


def _mark_params_as_const(
    model: torch.nn.Module | None = None, only_scales: bool = False, console_prints: bool = False
) -> None:
    """Mark the tensors of ``model.state_dict()`` as constants.

    Args:
        model: None marks nothing.
        only_scales: only those with ``scale`` in their name.
        console_prints: print every name.
    """
    names = () if model is None else mark_constants(model, only_scales)
    if console_prints:
        for name in names:
            print(f"'{name}' is a constant")


def _check_params_as_const(model: torch.nn.Module | None = None, only_scales: bool = False) -> None:
    """Look whether tensors were marked, as :func:`_mark_params_as_const` takes them.

    Raises:
        RuntimeError: names a tensor that is not marked.
    """
    marked = set(constant_tensor_names())
    for name in () if model is None else model.state_dict():
        if name not in marked and ("scale" in name or not only_scales):
            raise RuntimeError(
                f"'{name}' is not marked as a constant; call hpu_inference_initialize(model) first"
            )


def _get_marked_const_count() -> int:
    """How many tensors are marked."""
    return len(constant_tensor_names())


__getattr__ = refuse(__name__)
