"""How many bytes a checkpoint's weights take on a card, from the headers of its safetensors files.

A header names every tensor with its type and shape, so nothing of the weights is read. Source of
the format: https://github.com/huggingface/safetensors, "Format": eight bytes of length (little
endian), then so many bytes of JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase

INDEX = "model.safetensors.index.json"
# Floats that vLLM converts to the type it serves a model in; what is narrower, or no float, are
# quantised weights, which keep their type. So do their scales.
_CONVERTED = frozenset({"F64", "F32", "F16", "BF16"})
# A header larger than this is none (the format's own bound).
_LONGEST_HEADER = 100_000_000


def checkpoint_bytes(folder: Path, element_bytes: int, ranks: int = 1) -> int | None:
    """Bytes of the weights in ``folder`` on one of ``ranks`` tensor-parallel cards.

    Matrices are spread over the ranks, vectors (norms, biases, scales of rows) are on each.
    None where there are no safetensors files, or one of them is missing or no such file.

    Args:
        element_bytes: of the type the model is served in, which wider types are converted to.
    """
    try:
        files = _files(folder)
        sizes = [_share(tensor, element_bytes, ranks) for file in files for tensor in _header(file)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return sum(sizes) or None


def _files(folder: Path) -> list[Path]:
    """Those that vLLM loads: what the index names, or all."""
    index = folder / INDEX
    if index.is_file():
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / name for name in sorted(set(named))]
    return sorted(folder.glob("*.safetensors"))


def _header(file: Path) -> Iterator[tuple[str, str, list[int]]]:
    """Name, type and shape of every tensor of a file."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"{file} is no safetensors file")
        header = json.loads(stream.read(length))
    for name, entry in header.items():
        if name != "__metadata__":
            yield name, entry["dtype"], entry["shape"]


def _share(tensor: tuple[str, str, list[int]], element_bytes: int, ranks: int) -> int:
    """Bytes of a tensor on one rank."""
    name, dtype, shape = tensor
    bits = _bits(dtype)
    if dtype in _CONVERTED and "scale" not in name.rpartition(".")[2]:
        bits = 8 * element_bytes
    whole = -(-math.prod(shape) * bits // 8)
    return -(-whole // ranks) if len(shape) > 1 else whole


def _bits(dtype: str) -> int:
    """Of a type as safetensors names it: F32, BF16, I8, BOOL, F8_E4M3, F4, ..."""
    if dtype == "BOOL":
        return 8
    return int(dtype.partition("_")[0].lstrip(ascii_uppercase))
