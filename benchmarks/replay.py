"""How much faster is a decode step as a graph, or compiled, than operator by operator?

One decode step of a Llama of 12 layers and 100 million bfloat16 parameters, with a KV cache, on the
emulated device: eager, as an HPU graph (recorded once, replayed without Python), and through
``torch.compile(backend="hpu_backend")`` with one region per layer. All are checked to give the same
numbers and measured in turn in one run on the same tensors, with as many threads as the machine has
cores unless told otherwise: wall time, the best of several short rounds, so that other processes
count less. The ratios compare software on a CPU; they say nothing about a card.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import habana_frameworks.torch  # noqa: F401 - registers the device
import torch
import torch.nn.functional as F
from gaudi_emulator.graph import Graph
from habana_frameworks.torch.hpex.kernels import FusedSDPA, RotaryPosEmbeddingHelper
from habana_frameworks.torch.hpex.normalization import FusedRMSNorm
from torch import nn

HIDDEN, HEADS, KV_HEADS, INNER, LAYERS, VOCABULARY = 768, 12, 4, 2304, 12, 20480
HEAD = HIDDEN // HEADS
ROTATE_HALF = RotaryPosEmbeddingHelper.RotaryPosEmbeddingMode.BLOCKWISE


class Layer(nn.Module):
    """A Llama layer over a contiguous KV cache."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Parameter(torch.ones(HIDDEN))
        self.between = nn.Parameter(torch.ones(HIDDEN))
        self.qkv = nn.Linear(HIDDEN, (HEADS + 2 * KV_HEADS) * HEAD, bias=False)
        self.out = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.up = nn.Linear(HIDDEN, 2 * INNER, bias=False)
        self.down = nn.Linear(INNER, HIDDEN, bias=False)

    def forward(
        self,
        x: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        slot: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor,
    ) -> torch.Tensor:
        """``x`` [rows, hidden]; ``keys``, ``values`` [rows, KV heads, context, head size]."""
        rows = x.shape[0]
        normed = FusedRMSNorm.apply(x, self.before, 1e-6)
        sizes = [HEADS * HEAD, KV_HEADS * HEAD, KV_HEADS * HEAD]
        q, k, v = self.qkv(normed).split(sizes, -1)
        q, k = q.view(rows, 1, HEADS, HEAD), k.view(rows, 1, KV_HEADS, HEAD)
        q = RotaryPosEmbeddingHelper.apply_rotary_pos_emb(q, cos, sin, None, 0, ROTATE_HALF)
        k = RotaryPosEmbeddingHelper.apply_rotary_pos_emb(k, cos, sin, None, 0, ROTATE_HALF)
        keys.index_copy_(2, slot, k.transpose(1, 2))
        values.index_copy_(2, slot, v.view(rows, 1, KV_HEADS, HEAD).transpose(1, 2))
        seen = FusedSDPA.apply(q.transpose(1, 2), keys, values, mask, 0.0, False, None)
        x = x + self.out(seen.transpose(1, 2).reshape(rows, HIDDEN))
        gate, up = self.up(FusedRMSNorm.apply(x, self.between, 1e-6)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Decoder(nn.Module):
    """The step: tokens in, logits out; its state and inputs stay where they are."""

    def __init__(self, rows: int, context: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.Parameter(torch.ones(HIDDEN))
        shape = (LAYERS, rows, KV_HEADS, context, HEAD)
        self.register_buffer("keys", torch.randn(shape))
        self.register_buffer("values", torch.randn(shape))
        self.register_buffer("cos", torch.randn(1, 1, 1, HEAD))
        self.register_buffer("sin", torch.randn(1, 1, 1, HEAD))
        self.register_buffer("mask", torch.zeros(rows, 1, 1, context))

    def forward(
        self, tokens: torch.Tensor, slot: torch.Tensor, layers: Iterable[Callable[..., Any]]
    ) -> torch.Tensor:
        """``tokens`` [rows], ``slot`` [1]: where keys and values go; ``layers`` run in turn."""
        x = self.embedding(tokens)
        for layer, keys, values in zip(layers, self.keys, self.values, strict=True):
            x = layer(x, keys, values, slot, self.cos, self.sin, self.mask)
        x = FusedRMSNorm.apply(x, self.norm, 1e-6)
        return F.linear(x, self.embedding.weight)


def milliseconds(step: Callable[[], object], steps: int) -> float:
    """Mean wall time of a step."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    torch.hpu.synchronize()
    return (time.perf_counter() - start) / steps * 1e3


def contenders(rows: int, context: int) -> dict[str, Callable[[], torch.Tensor]]:
    """The same step, three ways."""
    torch.manual_seed(0)
    model = Decoder(rows, context).to(torch.bfloat16).to("hpu")
    tokens = torch.randint(0, VOCABULARY, (rows,)).to("hpu")
    slot = torch.tensor([context - 1]).to("hpu")
    torch._dynamo.config.force_parameter_static_shapes = False
    regions = [
        torch.compile(layer, backend="hpu_backend", dynamic=False, fullgraph=True)
        for layer in model.layers
    ]
    recorded = Graph()
    recorded.capture_begin()
    logits = model(tokens, slot, model.layers)
    recorded.capture_end()

    def graph() -> torch.Tensor:
        recorded.replay()
        return logits

    return {
        "eager": lambda: model(tokens, slot, model.layers),
        "graph": graph,
        "compile": lambda: model(tokens, slot, regions),
    }


def main() -> None:
    """Print milliseconds per step, and how many times as fast as eager each way is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1, help="sequences in the step")
    parser.add_argument("--context", type=int, default=128, help="tokens in the KV cache")
    parser.add_argument("--steps", type=int, default=5, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        steps = contenders(options.rows, options.context)
        expected = steps["eager"]().clone()
        for name, step in steps.items():
            torch.testing.assert_close(step(), expected, msg=f"{name} computes something else")
        best = dict.fromkeys(steps, float("inf"))
        for _ in range(options.rounds):
            for name, step in steps.items():
                best[name] = min(best[name], milliseconds(step, options.steps))
    for name, value in best.items():
        print(f"{name:<8} {value:8.2f} ms {best['eager'] / value:6.2f} times as fast as eager")


if __name__ == "__main__":
    main()
