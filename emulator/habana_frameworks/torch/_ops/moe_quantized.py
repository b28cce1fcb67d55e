"""``hpu::mixture_of_experts``: the overloads with FP8 and MXFP4 weights.

Schemas: scripts/hpu_op.yaml of HabanaAI/gaudi-pytorch-bridge (newer public commit); of the
``mxfp4`` overloads, which that file lacks, names and order as the bridge's own tests call them.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from habana_frameworks.torch._device import in_region
from habana_frameworks.torch.utils.internal import is_lazy

from .fp8_range import FP8_DTYPES
from .library import argument_names, operator
from .moe import check_experts
from .moe_quantized_kernel import MXFP4_GROUP, fp8_experts, packed_experts

__all__ = ["blockwise", "fp8", "mxfp4"]

_HEAD = "Tensor hidden_states, Tensor expert_routing_table, Tensor router_weights"
_EXPERTS = "bool permuted_weights, str activation, int experts_min, int experts_max"
_HINTS = "int chunk_size=0, int total_experts=0"
_SHAPE = "float alpha=1.702, float limit=7.0"
_BIASES = "Tensor[] w12_bias, Tensor[] w3_bias"

_ALPHA, _LIMIT = 1.702, 7.0

Named = dict[str, Any]


def _parts(named: Named) -> tuple[list, list, list, list]:
    """Gate (or gate and up), up, down, and biases; the numbers of tensors are checked."""
    lists: dict[str, Sequence] = {
        name: named[name]
        for name in ("w12", "w1", "w2", "w3", "w12_bias", "w3_bias")
        if name in named
    }
    lists |= {
        name: value
        for name, value in named.items()
        if name.startswith("d_scale_") and isinstance(value, list | tuple)
    }
    check_experts(
        named["hidden_states"],
        named["expert_routing_table"],
        named["router_weights"],
        lists,
        named["experts_min"],
        named["experts_max"],
        named.get("activation", "silu"),
    )
    first, second = named.get("w12") or named["w1"], named.get("w2") or []
    return first, second, named["w3"], [*named.get("w12_bias", ()), *named.get("w3_bias", ())]


def _scales(named: Named) -> list:
    """All scales in the order of the kernel: tokens, inner values, weights."""
    order = ("hidden_states", "intermediate_hidden_states", "w12", "w1", "w2", "w3")
    found = (named[f"d_scale_{name}"] for name in order if f"d_scale_{name}" in named)
    return list(
        itertools.chain.from_iterable(
            part if isinstance(part, list | tuple) else [part] for part in found
        )
    )


def _common(named: Named) -> tuple:
    return named["hidden_states"], named["expert_routing_table"], named["router_weights"]


def _end(named: Named) -> tuple:
    return (
        named["permuted_weights"],
        named.get("activation", "silu"),
        named["experts_min"],
        named["experts_max"],
    )


def fp8(named: Named) -> torch.Tensor:
    """Experts over FP8 tokens and weights: ``fp8*`` and ``bias_fp8*``.

    Scales multiply: a value is its FP8 number times its scale. The scale of the tokens is one, or
    one per token; of weights one per expert, or one per output channel. Without
    ``d_scale_intermediate_hidden_states`` each token's inner values get a scale of their own.

    Raises:
        ValueError: tokens or weights are not FP8, or lists of the wrong length.
    """
    first, second, last, biases = _parts(named)
    dtypes = {t.dtype for t in (named["hidden_states"], *first, *second, *last)}
    if not dtypes <= set(FP8_DTYPES):
        raise ValueError(
            "mixture_of_experts.fp8: hidden_states and weights must be FP8, got "
            f"{sorted(map(str, dtypes))}; cast them with cast_to_fp8_v2"
        )
    scales = _scales(named)
    numbers = [] if isinstance(scales[0], torch.Tensor) else scales
    return fp8_experts(
        *_common(named),
        first,
        second,
        last,
        biases,
        [] if numbers else scales,
        numbers,
        *_end(named),
        "d_scale_intermediate_hidden_states" not in named,
        named.get("alpha", _ALPHA),
        named.get("limit", _LIMIT),
    )


def _packed(named: Named) -> torch.Tensor:
    first, second, last, biases = _parts(named)
    return packed_experts(
        *_common(named),
        first,
        second,
        last,
        biases,
        _scales(named),
        named["block_size"],
        *_end(named),
        named.get("alpha", _ALPHA),
        named.get("limit", _LIMIT),
    )


def blockwise(named: Named) -> torch.Tensor:
    """Experts over wide tokens, and FP8 weights with one scale per square block of them."""
    return _packed(named)


def mxfp4(named: Named) -> torch.Tensor:
    """Experts over wide tokens and MXFP4 weights; see ``dequantize_mxfp4`` for the packing.

    Raises:
        NotImplementedError: in eager mode; the card has these in compiled graphs only.
        ValueError: ``permuted_weights`` is False, ``block_size`` not 32, ``is_fp4`` False.
    """
    if not (in_region() or is_lazy()):
        raise NotImplementedError(
            "mixture_of_experts.mxfp4: the card has no eager kernel for MXFP4 experts; call it "
            'inside torch.compile(..., backend="hpu_backend"), or with PT_HPU_LAZY_MODE=1'
        )
    for name, needed in (("permuted_weights", True), ("is_fp4", True), ("block_size", MXFP4_GROUP)):
        if named[name] != needed:
            raise ValueError(f"mixture_of_experts.mxfp4: {name} must be {needed}")
    return _packed(named)


def _fp8_schemas() -> Iterator[str]:
    for fused, numbers, dynamic in itertools.product((False, True), repeat=3):
        names = ("w12", "w3") if fused else ("w1", "w2", "w3")
        one = "float" if numbers else "Tensor"
        scales = [f"{one} d_scale_hidden_states"]
        if not dynamic:
            scales.append(f"{one}[] d_scale_intermediate_hidden_states")
        scales += [f"{one}[] d_scale_{name}" for name in names]
        overload = "fp8" + "_fused_weights" * fused + "_scalars" * numbers + "_dynamic" * dynamic
        weights = ", ".join(f"Tensor[] {name}" for name in names)
        yield f"{overload}({_HEAD}, {weights}, {', '.join(scales)}, {_EXPERTS}, *, {_HINTS})"
    for one, suffix in (("Tensor", ""), ("float", "_scalars")):
        yield (
            f"bias_fp8_fused_weights{suffix}({_HEAD}, Tensor[] w12, Tensor[] w3, {_BIASES},"
            f" {one} d_scale_hidden_states, {one}[] d_scale_intermediate_hidden_states,"
            f" {one}[] d_scale_w12, {one}[] d_scale_w3, *, bool permuted_weights,"
            f" int experts_min, int experts_max, {_HINTS}, {_SHAPE})"
        )


def _packed_schemas(overload: str, tail: str = "") -> Iterator[str]:
    for names, fused in ((("w1", "w2", "w3"), ""), (("w12", "w3"), "_fused_weights")):
        weights = ", ".join(f"Tensor[] {name}" for name in names)
        scales = ", ".join(f"Tensor[] d_scale_{name}" for name in names)
        yield (
            f"{overload.format(fused)}({_HEAD}, {weights}, {scales}, int block_size,"
            f" {_EXPERTS}{tail}, *, {_HINTS})"
        )


_BIAS_MXFP4 = (
    f"bias_mxfp4_fused_weights({_HEAD}, Tensor[] w12, Tensor[] w3, {_BIASES},"
    " Tensor[] d_scale_w12, Tensor[] d_scale_w3, *, int block_size, bool permuted_weights,"
    f" int experts_min, int experts_max, bool is_fp4, {_HINTS}, {_SHAPE})"
)


def _register() -> None:
    families: list[tuple[Callable[[Named], torch.Tensor], Iterable[str]]] = [
        (fp8, _fp8_schemas()),
        (blockwise, _packed_schemas("fp8{}_blockwise")),
        (mxfp4, [*_packed_schemas("mxfp4{}", ", bool is_fp4"), _BIAS_MXFP4]),
    ]
    for run, schemas in families:
        for text in schemas:
            schema = f"mixture_of_experts.{text} -> Tensor"
            names = argument_names(schema)

            def kernel(
                *args: Any, _names: list[str] = names, _run: Any = run, **kwargs: Any
            ) -> torch.Tensor:
                return _run(dict(zip(_names, args, strict=False)) | kwargs)

            operator(schema, _fake)(kernel)


def _fake(hidden: torch.Tensor, routing: Any, router_weights: torch.Tensor, *_: Any, **__: Any):
    return hidden.new_empty(hidden.shape, dtype=router_weights.dtype)


_register()
