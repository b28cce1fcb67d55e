"""Quantise a small model to FP8 with neural-compressor, in a process of its own.

    python quantize_model.py FOLDER SCALE_METHOD

Measures, quantises a fresh model from what was measured, and prints one line of JSON: the relative
error of every output against the bfloat16 model, and what became of the weights.
"""

import json
import math
import sys
from pathlib import Path

import torch
from habana_frameworks.torch.hpex.kernels import FusedSDPA
from neural_compressor.torch.quantization import (
    FP8Config,
    convert,
    finalize_calibration,
    prepare,
)

HEADS, DIM = 4, 16


class ModuleFusedSDPA(torch.nn.Module):
    """The wrapper that neural-compressor replaces; it goes by the name of the class."""

    def __init__(self, kernel):
        super().__init__()
        self._hpu_kernel_fsdpa = kernel

    def forward(self, *args):
        return self._hpu_kernel_fsdpa.apply(*args)


class Attention(torch.nn.Module):
    """Linear layers around fused attention."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.qkv = torch.nn.Linear(HEADS * DIM, 3 * HEADS * DIM, bias=False)
        self.attention = ModuleFusedSDPA(FusedSDPA)
        self.out = torch.nn.Linear(HEADS * DIM, HEADS * DIM)

    def forward(self, x):
        batch, length, width = x.shape
        parts = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (t.reshape(batch, length, HEADS, DIM).transpose(1, 2) for t in parts)
        mixed = self.attention(q, k, v, None, 0.0, True, 1 / math.sqrt(DIM), "fast")
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


def fresh():
    return Attention().to(torch.bfloat16).to("hpu").eval()


def config(folder, mode, method):
    settings = {
        "mode": mode,
        "observer": "maxabs",
        "scale_method": method,
        "dump_stats_path": str(folder / "measured"),
    }
    path = folder / f"{mode}.json"
    path.write_text(json.dumps(settings))
    return FP8Config.from_json_file(str(path))


def main():
    folder, method = Path(sys.argv[1]), sys.argv[2]
    generator = torch.Generator().manual_seed(1)
    shape = (2, 8, HEADS * DIM)
    inputs = [torch.randn(shape, generator=generator).bfloat16().to("hpu") for _ in range(4)]
    with torch.no_grad():
        plain = fresh()
        exact = [plain(x).float() for x in inputs]
        measured = prepare(fresh(), config(folder, "MEASURE", method))
        for x in inputs:
            measured(x)
        finalize_calibration(measured)
        quantised = convert(fresh(), config(folder, "QUANTIZE", method))
        errors = [
            ((quantised(x).float() - e).norm() / e.norm()).item()
            for x, e in zip(inputs, exact, strict=True)
        ]
    weights = {n: p for n, p in quantised.named_parameters() if n.endswith(".weight")}
    found = {
        "errors": errors,
        "dtypes": {name: str(weight.dtype) for name, weight in weights.items()},
        "largest": max(weight.float().abs().max().item() for weight in weights.values()),
        "attention": type(quantised.attention).__name__,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
