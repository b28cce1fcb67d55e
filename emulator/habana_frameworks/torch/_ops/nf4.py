"""``hpu::dequantize_nf4`` and ``hpu::quantize_nf4``: the 4-bit format of QLoRA.

Schemas: habana_eager/eager_custom_op_register.cpp of HabanaAI/gaudi-pytorch-bridge (newer public
commit). The sixteen values are those of "QLoRA: Efficient Finetuning of Quantized LLMs", appendix
E; the order of nibbles is bitsandbytes'.
"""

import torch

from .library import operator

__all__ = ["dequantize_nf4", "quantize_nf4"]

# Appendix E of the paper, to float32.
_VALUES = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def _table(like: torch.Tensor) -> torch.Tensor:
    # Filled on the device, value by value: a copy from the host cannot be part of a graph.
    return torch.stack([torch.full((), value, device=like.device) for value in _VALUES])


def _fake_dequantize(input, absmax, blocksize, out_shape, out_dtype, use_big_endian=True):
    return input.new_empty(out_shape, dtype=out_dtype)


@operator(
    "dequantize_nf4(Tensor input, Tensor absmax, SymInt blocksize, int[] out_shape,"
    " ScalarType out_dtype, bool use_big_endian=True) -> Tensor",
    _fake_dequantize,
)
def dequantize_nf4(
    input: torch.Tensor,
    absmax: torch.Tensor,
    blocksize: int,
    out_shape: list[int],
    out_dtype: torch.dtype,
    use_big_endian: bool = True,
) -> torch.Tensor:
    """Look up each nibble and multiply it with the ``absmax`` of its block.

    Args:
        input: uint8, two values per byte.
        absmax: ``[ceil(values / blocksize)]``.
        blocksize: consecutive values that share one ``absmax``.
        out_shape: shape of the result; its size says how many values there are.
        use_big_endian: the first value of a byte is in the high nibble (bitsandbytes' order, and
            the card's since release 1.22), else in the low one.

    Returns:
        ``out_shape`` in ``out_dtype``.
    """
    if input.dtype != torch.uint8:
        raise ValueError(f"dequantize_nf4: input must be uint8, got {input.dtype}")
    count = 1
    for size in out_shape:
        count *= size
    codes = input.reshape(-1)
    halves = [codes.bitwise_right_shift(4), codes.bitwise_and(15)]
    nibbles = torch.stack(halves if use_big_endian else halves[::-1], dim=-1).flatten()[:count]
    factors = absmax.reshape(-1).to(torch.float32).repeat_interleave(blocksize)[:count]
    values = _table(input).index_select(0, nibbles.to(torch.int64)) * factors
    return values.reshape(out_shape).to(out_dtype)


def _fake_quantize(input, blocksize):
    count = input.numel()
    return (
        input.new_empty([(count + 1) // 2], dtype=torch.uint8),
        input.new_empty([(count + blocksize - 1) // blocksize]),
    )


@operator("quantize_nf4(Tensor input, SymInt blocksize) -> (Tensor, Tensor)", _fake_quantize)
def quantize_nf4(input: torch.Tensor, blocksize: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest of the sixteen values for each element, over the largest of its block.

    Returns:
        uint8 ``[ceil(values / 2)]``, the first value of a byte in the high nibble, and the
        largest magnitude of each block in the dtype of ``input``.
    """
    values = input.reshape(-1).to(torch.float32)
    count = values.numel()
    blocks = torch.nn.functional.pad(values, (0, -count % blocksize)).reshape(-1, blocksize)
    absmax = blocks.abs().amax(dim=-1)
    scaled = blocks / torch.where(absmax > 0, absmax, 1.0).unsqueeze(-1)
    codes = (scaled.unsqueeze(-1) - _table(input)).abs().argmin(dim=-1).flatten()[:count]
    codes = torch.nn.functional.pad(codes, (0, count % 2)).reshape(-1, 2).to(torch.uint8)
    return codes[:, 0] * 16 + codes[:, 1], absmax.to(input.dtype)
