"""Which operators change the type of their tensors under ``torch.autocast("hpu")``.

Source of the lists and of their variables: hpu_ops/autocast_helpers.h of
HabanaAI/gaudi-pytorch-bridge. Casts are not kept from one operator to the next, as on a card.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

__all__ = ["register"]

# In the autocast type, bfloat16 unless torch.autocast says otherwise.
_LOWER = """
    addmm addbmm batch_norm baddbmm bmm conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d conv_transpose3d dot dropout feature_dropout group_norm instance_norm
    layer_norm leaky_relu linear matmul mean mm mul mv softmax log_softmax
    scaled_dot_product_attention
"""
# In float32.
_FLOAT32 = """
    acos addcdiv asin atan2 bilinear binary_cross_entropy binary_cross_entropy_with_logits
    cdist cosh cosine_embedding_loss cosine_similarity cross_entropy_loss dist div divide
    embedding embedding_bag erfinv exp expm1 hinge_embedding_loss huber_loss kl_div l1_loss
    log log10 log1p log2 logsumexp margin_ranking_loss mse_loss multi_margin_loss
    multilabel_margin_loss nll_loss pdist poisson_nll_loss pow reciprocal renorm rsqrt sinh
    smooth_l1_loss soft_margin_loss softplus tan topk triplet_margin_loss true_divide
"""
# In the widest type among their tensors, unless in a list above.
_PROMOTED = "add addcmul addcdiv cat div exp mul pow sub stack"
# Of these only the input is lowered: statistics, weight and bias stay.
_FIRST_ONLY = {"layer_norm", "group_norm", "instance_norm", "batch_norm"}

_LOWER_FILE = "PT_HPU_AUTOCAST_LOWER_PRECISION_OPS_LIST"
_FLOAT32_FILE = "PT_HPU_AUTOCAST_FP32_OPS_LIST"

_KEY = torch._C._parse_dispatch_key("AutocastHPU")
_ATEN = torch.library.Library("aten", "IMPL")
_log = logging.getLogger(__name__)

Cast = Callable[[torch.Tensor], torch.Tensor]


def register() -> None:
    """Give the listed operators their casts."""
    lower = _listed(_LOWER_FILE, _LOWER)
    float32 = _listed(_FLOAT32_FILE, _FLOAT32) - lower
    for name in sorted(lower):
        _each_overload(name, lambda _: _to(torch.get_autocast_dtype("hpu")), name in _FIRST_ONLY)
    for name in sorted(float32):
        _each_overload(name, lambda _: _to(torch.float32))
    for name in sorted(set(_PROMOTED.split()) - lower - float32):
        _each_overload(name, _to_widest)


def _listed(variable: str, default: str) -> set[str]:
    """The operators that the file of ``variable`` names, one per line."""
    path = os.environ.get(variable)
    if path is None:
        return set(default.split())
    try:
        return set(Path(path).read_text(encoding="utf-8").split())
    except OSError as error:
        _log.warning("%s: %s. The default list is used.", variable, error)
        return set(default.split())


def _each_overload(
    name: str, choose: Callable[[list[torch.Tensor]], Cast], first: bool = False
) -> None:
    packet = getattr(torch.ops.aten, name, None)
    for overload in packet.overloads() if packet is not None else ():
        # What writes into a tensor of the caller has that tensor's type.
        if overload != "out" and not overload.endswith("_out"):
            operator = getattr(packet, overload)
            _ATEN.impl(
                operator.name().removeprefix("aten::"),
                _cast(operator, choose, first),
                "AutocastHPU",
            )


def _cast(
    operator: torch._ops.OpOverload, choose: Callable[[list[torch.Tensor]], Cast], first: bool
) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = pytree.tree_flatten((args[:1], {}) if first else (args, kwargs))
        cast = choose([leaf for leaf in leaves if _eligible(leaf)])
        leaves = [cast(leaf) if _eligible(leaf) else leaf for leaf in leaves]
        changed, named = pytree.tree_unflatten(leaves, structure)
        if first:
            changed, named = (*changed, *args[1:]), kwargs
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(_KEY)):
            return operator(*changed, **named)

    return call


def _eligible(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.device.type == "hpu"
        and value.is_floating_point()
        and value.dtype is not torch.float64
    )


def _to(dtype: torch.dtype) -> Cast:
    return lambda tensor: tensor.to(dtype)


def _to_widest(tensors: list[torch.Tensor]) -> Cast:
    lowered = torch.get_autocast_dtype("hpu")
    wide = any(tensor.dtype is torch.float32 for tensor in tensors)
    return _to(torch.float32) if wide else (lambda tensor: tensor.to(lowered))
