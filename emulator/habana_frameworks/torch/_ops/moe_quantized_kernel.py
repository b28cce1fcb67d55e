"""The work of ``hpu::mixture_of_experts`` with FP8 or MXFP4 weights, over host tensors.

Source of the mathematics: ``mixture_of_experts_fp8_common`` and its siblings in HabanaAI/
gaudi-pytorch-bridge (newer public commit), and the tests of its ``mxfp4`` overloads. There the
inner scale is always one, which does not show on which side of the cast it acts; here it is a
scale to multiply with after the cast, as its name ``d_scale`` says of all of them.
"""

from collections.abc import Callable

import torch

from .fp8_range import fp8_max, saturate
from .library import device_kernel
from .moe_kernel import ACTIVATIONS, clamped_swiglu, per_expert

__all__ = ["MXFP4_GROUP", "dequantize_mxfp4", "fp8_experts", "packed_experts", "spread_blocks"]

MXFP4_GROUP = 32
"""Values of a row that share one scale."""

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_DYNAMIC_FLOOR = 1e-8

Weight = Callable[[int], torch.Tensor]


def dequantize_mxfp4(packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Unpack MXFP4.

    Args:
        packed: uint8 ``[rows, columns / 2]``, the even column in the low nibble, E2M1 values.
        scales: uint8 ``[rows, ceil(columns / 32)]``, E8M0: ``2 ** (byte - 127)``.

    Returns:
        bfloat16 ``[rows, columns]``; every value is exact in that type.
    """
    table = torch.tensor([*_E2M1, *(-value for value in _E2M1)], dtype=torch.float32)
    nibbles = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)
    columns = nibbles.shape[-1]
    factors = torch.exp2(scales.to(torch.float32) - 127).repeat_interleave(MXFP4_GROUP, dim=-1)
    return (table[nibbles.to(torch.int64)] * factors[..., :columns]).to(torch.bfloat16)


def spread_blocks(scales: torch.Tensor, block: int, shape: torch.Size) -> torch.Tensor:
    """One scale per block of ``block`` rows and columns, repeated to ``shape`` and cut there."""
    spread = scales.repeat_interleave(block, dim=0).repeat_interleave(block, dim=1)
    return spread[: shape[0], : shape[1]]


def _run(
    hidden: torch.Tensor,
    routing: torch.Tensor,
    router_weights: torch.Tensor,
    first: Weight,
    second: Weight | None,
    last: Weight,
    biases: list[torch.Tensor],
    quantize: Callable[[int, torch.Tensor], torch.Tensor],
    experts: tuple[int, int],
    activation: str,
    shape: tuple[float, float],
) -> torch.Tensor:
    """Experts whose weights come from functions, as ``[in, out]`` in float32.

    The card's matrix engine hands on bfloat16, so each product is rounded to it.
    """
    count = experts[1] - experts[0] + 1

    def expert(index: int, x: torch.Tensor) -> torch.Tensor:
        both = (x @ first(index)).to(torch.bfloat16)
        if biases:
            inner = clamped_swiglu(both + biases[index], *shape)
        else:
            if second is None:
                gate, up = both.chunk(2, dim=-1)
            else:
                gate, up = both, (x @ second(index)).to(torch.bfloat16)
            inner = ACTIVATIONS[activation](gate) * up
        out = (quantize(index, inner) @ last(index)).to(torch.bfloat16)
        return out + biases[count + index] if biases else out

    out = per_expert(hidden, routing, router_weights, *experts, expert)
    return out.to(router_weights.dtype)


def _fp8_weight(weight: torch.Tensor, scale: torch.Tensor, transposed: bool) -> torch.Tensor:
    """``[in, out]`` in float32; the scale is one value, or one per output channel."""
    values = (weight.t() if transposed else weight).to(torch.float32)
    return values * (scale.reshape(-1) if scale.numel() > 1 else scale.reshape(()))


@device_kernel(
    "fp8_experts(Tensor hidden, Tensor routing, Tensor router_weights, Tensor[] w12, Tensor[] w2,"
    " Tensor[] w3, Tensor[] biases, Tensor[] scales, float[] numbers, bool permuted_weights,"
    " str activation, int experts_min, int experts_max, bool dynamic, float alpha, float limit)"
    " -> Tensor"
)
def fp8_experts(
    hidden: torch.Tensor,
    routing: torch.Tensor,
    router_weights: torch.Tensor,
    w12: list[torch.Tensor],
    w2: list[torch.Tensor],
    w3: list[torch.Tensor],
    biases: list[torch.Tensor],
    scales: list[torch.Tensor],
    numbers: list[float],
    permuted_weights: bool,
    activation: str,
    experts_min: int,
    experts_max: int,
    dynamic: bool,
    alpha: float,
    limit: float,
) -> torch.Tensor:
    """Experts over FP8 tokens and FP8 weights.

    Args:
        biases: none, or the biases of all first projections, then of all second ones (GPT-OSS).
        scales: of the tokens (one, or one per token), then per expert of the inner values
            (not with ``dynamic``), of ``w12``, of ``w2`` if there is one, of ``w3``.
        numbers: the same as numbers, if ``scales`` is empty.
        dynamic: scale each row of inner values to the card's range when it is known.

    Returns:
        ``[tokens, hidden]`` in the dtype of ``router_weights``.
    """
    count, dtype = len(w12), hidden.dtype
    factors = scales or [torch.tensor(number, dtype=torch.float32) for number in numbers]
    groups = [factors[start : start + count] for start in range(1, len(factors), count)]
    inner_scales = [] if dynamic else groups.pop(0)
    token_scale = factors[0].to(torch.float32)
    tokens = hidden.to(torch.float32) * (
        token_scale.reshape(-1, 1) if token_scale.numel() > 1 else token_scale.reshape(())
    )

    def quantize(index: int, inner: torch.Tensor) -> torch.Tensor:
        values = inner.to(torch.float32)
        if dynamic:
            largest = values.abs().amax(dim=-1, keepdim=True)
            scale = (largest + _DYNAMIC_FLOOR) / fp8_max(dtype)
        else:
            scale = inner_scales[index].to(torch.float32).reshape(())
        return saturate(values / scale, dtype).to(torch.float32) * scale

    def weight(tensors: list[torch.Tensor], own: list[torch.Tensor]) -> Weight:
        return lambda index: _fp8_weight(tensors[index], own[index], permuted_weights)

    return _run(
        tokens,
        routing,
        router_weights,
        weight(w12, groups[0]),
        weight(w2, groups[1]) if w2 else None,
        weight(w3, groups[-1]),
        biases,
        quantize,
        (experts_min, experts_max),
        activation,
        (alpha, limit),
    )


@device_kernel(
    "packed_experts(Tensor hidden, Tensor routing, Tensor router_weights, Tensor[] w12,"
    " Tensor[] w2, Tensor[] w3, Tensor[] biases, Tensor[] scales, int block_size,"
    " bool permuted_weights, str activation, int experts_min, int experts_max, float alpha,"
    " float limit) -> Tensor"
)
def packed_experts(
    hidden: torch.Tensor,
    routing: torch.Tensor,
    router_weights: torch.Tensor,
    w12: list[torch.Tensor],
    w2: list[torch.Tensor],
    w3: list[torch.Tensor],
    biases: list[torch.Tensor],
    scales: list[torch.Tensor],
    block_size: int,
    permuted_weights: bool,
    activation: str,
    experts_min: int,
    experts_max: int,
    alpha: float,
    limit: float,
) -> torch.Tensor:
    """Experts over wide tokens, with weights that are unpacked first.

    Args:
        scales: per expert of ``w12``, then of ``w2`` if there is one, then of ``w3``. Of uint8
            weights they are E8M0 (MXFP4), of FP8 weights one per block of ``block_size`` rows
            and columns.

    Returns:
        ``[tokens, hidden]`` in the dtype of ``router_weights``.
    """
    count = len(w12)

    def weight(tensors: list[torch.Tensor], first: int) -> Weight:
        def unpack(index: int) -> torch.Tensor:
            packed, own = tensors[index], scales[first + index]
            if packed.dtype == torch.uint8:
                values = dequantize_mxfp4(packed, own)
            else:
                values = packed.to(own.dtype) * spread_blocks(own, block_size, packed.shape)
            return (values.t() if permuted_weights else values).to(torch.float32)

        return unpack

    return _run(
        hidden.to(torch.float32),
        routing,
        router_weights,
        weight(w12, 0),
        weight(w2, count) if w2 else None,
        weight(w3, len(scales) - count),
        biases,
        lambda _, inner: inner.to(torch.float32),
        (experts_min, experts_max),
        activation,
        (alpha, limit),
    )
