"""Compares shape plans by their padded work, on simulated chat and on long documents.

    python -m benchmarks.plans

Nothing is run or measured: steps are simulated (``vllm_hpu/shapes/simulate.py``), and operations
follow from formulas. The existing Gaudi plugin (vllm-gaudi 0.26) is modelled from the published
description of its buckets: see docs/shapes.md.
"""

import argparse
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from vllm_hpu.shapes import Limits, ShapePlan, Strategy, step_of
from vllm_hpu.shapes.cost import CostModel
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.model import ModelShape
from vllm_hpu.shapes.simulate import simulate
from vllm_hpu.shapes.strategies.exponential import Exponential
from vllm_hpu.shapes.strategies.linear import Linear
from vllm_hpu.shapes.strategies.optimal import Optimal
from vllm_hpu.shapes.strategies.padded import Padded
from vllm_hpu.shapes.traffic import Traffic, TrafficRecorder

BLOCK = 128
LIMITS = Limits(256, 8192, 32768, BLOCK, max_decode_blocks=4127, max_prefill_blocks=4127)
LLAMA_8B = ModelShape(
    layers=32, hidden=4096, heads=32, kv_heads=8, head_size=128, intermediate=14336, vocab=128256
)
COST = CostModel(LLAMA_8B, BLOCK)

Integers = NDArray[np.int64]
Rows = tuple[Integers, Integers]  # scheduled and computed tokens of the rows of a step
Flops = Callable[[Rows], float]


@dataclass(frozen=True)
class Mix:
    """Log-normal lengths: medians and standard deviations of the logarithm, tokens in and out.

    requests  most in flight; 1 to that many are, an octave as often as another
    """

    name: str
    tokens_in: tuple[float, float]
    tokens_out: tuple[float, float]
    requests: int

    def traffic(self, seed: int, requests: int = 600) -> Traffic:
        """What a server records of ``requests`` requests."""
        random = np.random.default_rng(seed)
        given, output = (
            np.exp(random.normal(math.log(median), spread, requests)).astype(np.int64)
            for median, spread in (self.tokens_in, self.tokens_out)
        )
        recorder = TrafficRecorder()
        for one, other in zip(given.tolist(), output.tolist(), strict=True):
            recorder.finished(min(max(1, one), LIMITS.max_model_len), other)
        loads = np.geomspace(1, self.requests, 24).round().astype(np.int64)
        for load in loads.tolist():
            recorder.step(load)
        return recorder.traffic()

    def steps(self, seed: int, each: int = 200) -> list[tuple[Rows, float]]:
        """Steps and their shares: ``each`` samples for every number of requests in flight."""
        traffic, random = self.traffic(seed), np.random.default_rng(seed)
        found: list[tuple[Rows, float]] = []
        for load in traffic.concurrency:
            samples = list(simulate(traffic, load.requests, LIMITS, each, random))
            share = load.share / sum(sample.steps for sample in samples)
            found += [((one.scheduled, one.computed), one.steps * share) for one in samples]
        total = sum(share for _, share in found)
        return [(rows, share / total) for rows, share in found]


CHAT = Mix("chat", (250, 1.2), (220, 0.9), 256)
DOCUMENTS = Mix("documents", (9000, 0.6), (300, 0.7), 64)


class Buckets:
    """The buckets of the other plugin: (batch, query, context blocks), batch 1 for prompts.

    A look-up takes the first bucket, in ascending order, that is large enough. What fits in none is
    taken to run at its own size in whole blocks, and counted.
    """

    def __init__(self, prompts: Sequence[tuple[int, int]], decodes: Sequence[tuple[int, int]]):
        """``prompts``: (query, context blocks); ``decodes``: (batch, blocks)."""
        self.prompts, self.decodes = sorted(prompts), sorted(decodes)
        self.missed = 0

    def _find(self, buckets: list[tuple[int, int]], first: int, second: int) -> tuple[int, int]:
        for bucket in buckets[bisect_left(buckets, (first, second)) :]:
            if bucket[1] >= second:
                return bucket
        self.missed += 1
        return first, second

    def flops(self, rows: Rows) -> float:
        """Operations of a step: one graph for its decode rows, and one for each prompt.

        Decode attention works like ours, block by block with one-hot products. Prefill attention
        is counted as exactly the causal half without cached context, and as all pairs with it.
        """
        scheduled, computed = rows
        decode = scheduled == 1
        total = 0.0
        if decode.any():
            blocks = int((-(-(scheduled + computed)[decode] // BLOCK)).sum())
            batch, padded = self._find(self.decodes, int(decode.sum()), blocks)
            total += COST.key(GraphKey(batch, batch, padded, False, 0)).flops
        for new, old in zip(scheduled[~decode].tolist(), computed[~decode].tolist(), strict=True):
            query, context = self._find(self.prompts, new, -(-old // BLOCK))
            pairs = query * (context * BLOCK + query) if context else query * (query + 1) / 2
            total += COST.useful_flops(query, 0) + _PAIR * (pairs - query * (query + 1) / 2)
        return total


_PAIR = COST.useful_flops(1, 1) - COST.useful_flops(1, 0)


def geometric_sizes(least: int, step: int, most: int, count: int) -> list[int]:
    """``count`` sizes in geometric progression, rounded up to ``step``, the last one ``most``.

    A least size of 0 or 1 is one more size, and the progression begins at ``step``.
    """
    first = step if least <= 1 else least
    # Rounding before rounding up: 256.00000000000006 is 256.
    sizes = {
        math.ceil(round(first * (most / first) ** (n / (count - 1)) / step, 9)) * step
        for n in range(count - 1)
    }
    return sorted(sizes | {most} | ({least} if least <= 1 else set()))


def _log2(number: int) -> int:
    return math.ceil(math.log2(number))


def _within(batch: int, blocks: int) -> tuple[int, int]:
    return batch, min(blocks, batch * LIMITS.blocks_per_row)


def exponential_buckets() -> Buckets:
    """120 prompt and 81 decode graphs."""
    most, seqs, blocks = LIMITS.max_num_batched_tokens, LIMITS.max_num_seqs, LIMITS.decode_blocks
    context = (LIMITS.max_model_len - most) // BLOCK
    queries = geometric_sizes(BLOCK, BLOCK, most, _log2(most))
    contexts = geometric_sizes(0, 1, context, _log2(context) + 1)
    batches = geometric_sizes(1, 2, seqs, _log2(seqs) + 1)
    totals = geometric_sizes(1, seqs, blocks, _log2(blocks) + 1)
    decodes = {_within(*pair) for pair in product(batches, totals) if pair[0] <= pair[1]}
    return Buckets(list(product(queries, contexts)), list(decodes))


def linear_buckets() -> Buckets:
    """14,368 prompt and 4,042 decode graphs."""
    tokens, blocks = LIMITS.max_num_batched_tokens, LIMITS.decode_blocks
    prompts = [
        (query, context)
        for query in range(BLOCK, tokens + 1, BLOCK)
        for context in range((LIMITS.max_model_len - query) // BLOCK + 1)
    ]
    batches = [1, *range(2, LIMITS.max_num_seqs + 1, 2)]
    totals = [*range(BLOCK, blocks + 1, BLOCK), blocks]
    decodes = {_within(*pair) for pair in product(batches, totals) if pair[0] <= pair[1]}
    return Buckets(prompts, list(decodes))


def _exact(rows: Rows) -> float:
    """Our operations in graphs of exactly the step's sizes."""
    return COST.step(step_of(*rows, BLOCK, LIMITS.query_len)).flops


def _needed(rows: Rows) -> float:
    """What the rows need: every token once, attending to itself and what precedes it."""
    return sum(
        COST.useful_flops(new, old)
        for new, old in zip(rows[0].tolist(), rows[1].tolist(), strict=True)
    )


@dataclass(frozen=True)
class Result:
    """A plan on a mix: operations per step, on average.

    launched  in the graphs of the plan
    exact     in graphs of exactly the steps' sizes, computed the same way
    needed    if every token met only what it attends to
    missed    share of the steps that no planned graph takes
    """

    plan: str
    mix: str
    graphs: int
    launched: float
    exact: float
    needed: float
    missed: float

    @property
    def padded(self) -> float:
        """Operations on padding."""
        return self.launched - self.exact

    @property
    def wasted(self) -> float:
        """Operations on padding, and on tokens that do not attend to each other."""
        return self.launched - self.needed


def _theirs(name: str, mix: str, buckets: Buckets, steps: list[tuple[Rows, float]]) -> Result:
    launched = exact = missed = 0.0
    for rows, share in steps:
        before = buckets.missed
        launched += share * buckets.flops(rows)
        missed += share * (buckets.missed > before)
        exact += share * Buckets([], []).flops(rows)
    graphs = len(buckets.prompts) + len(buckets.decodes)
    needed = sum(share * _needed(rows) for rows, share in steps)
    return Result(name, mix, graphs, launched, exact, needed, missed)


def _ours(name: str, mix: str, plan: ShapePlan, steps: list[tuple[Rows, float]]) -> Result:
    launched = missed = 0.0
    for rows, share in steps:
        key = plan.dispatch(step_of(*rows, BLOCK, LIMITS.query_len))
        launched += share * COST.operations(key)
        missed += share * (key not in plan)
    exact, needed = (sum(share * of(rows) for rows, share in steps) for of in (_exact, _needed))
    return Result(name, mix, len(plan.keys), launched, exact, needed, missed)


def results(mix: Mix, seed: int) -> Iterator[Result]:
    """Every plan on the steps of ``mix``; our profile is recorded from other requests of it."""
    steps = mix.steps(seed)
    yield _theirs("vllm-gaudi exp", mix.name, exponential_buckets(), steps)
    yield _theirs("vllm-gaudi lin", mix.name, linear_buckets(), steps)
    profile = mix.traffic(seed + 1)
    ours: list[tuple[str, Strategy, Callable[[GraphKey], float]]] = [
        ("exp", Exponential(), COST.price),
        ("lin", Linear(), COST.price),
        ("pad", Padded(), COST.price),
        ("opt", Optimal(), COST.price),
        ("opt, profile", Optimal(profile), COST.price),
        ("opt, profile, ops", Optimal(profile), COST.operations),
    ]
    for name, strategy, cost in ours:
        yield _ours(name, mix.name, ShapePlan(LIMITS, strategy, cost), steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    print(
        f"{'mix':<11}{'plan':<18}{'graphs':>7}{'launched':>10}{'padded':>8}{'of exp':>8}"
        f"{'wasted':>8}{'of exp':>8}{'missed':>8}"
    )
    for mix in (CHAT, DOCUMENTS):
        first: Result | None = None
        for one in results(mix, seed):
            first = first or one
            print(
                f"{one.mix:<11}{one.plan:<18}{one.graphs:>7}{one.launched / 1e12:>10.3f}"
                f"{one.padded / 1e12:>8.3f}{one.padded / first.padded:>8.1%}"
                f"{one.wasted / 1e12:>8.3f}{one.wasted / first.wasted:>8.1%}{one.missed:>8.2%}",
                flush=True,
            )
    print("Predicted operations in TFLOP per step; 'of exp': of the same for vllm-gaudi exp.")


if __name__ == "__main__":
    main()
