"""The steps that traffic leads to: a model of vLLM's scheduler."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.step import Step, step_of
from vllm_hpu.shapes.traffic import Load, Traffic

Integers = NDArray[np.int64]

# A plan of a hundred graphs gains little from more; they take a few tenths of a second.
DEFAULT_STEPS = 6000
_MOST_LOADS = 32


def steps_of(
    traffic: Traffic, limits: Limits, number: int = DEFAULT_STEPS, seed: int = 0
) -> dict[Step, float]:
    """The steps of a server under ``traffic``, with their shares of all steps.

    number: how many samples to take, spread over the numbers of requests in flight.
    """
    found: dict[Step, float] = {}
    random = np.random.default_rng(seed)
    loads = _merged(traffic.concurrency)
    total = sum(load.share for load in loads)
    for load in loads:
        samples = list(simulate(traffic, load.requests, limits, -(-number // len(loads)), random))
        steps = sum(sample.steps for sample in samples)
        for scheduled, computed, like in samples:
            step = step_of(scheduled, computed, limits.block_size, limits.query_len)
            found[step] = found.get(step, 0.0) + load.share / total * like / steps
    return found


class Sample(NamedTuple):
    """One of ``steps`` steps alike: tokens that its rows compute, and have computed before."""

    scheduled: Integers
    computed: Integers
    steps: int


def simulate(
    traffic: Traffic, requests: int, limits: Limits, samples: int, random: np.random.Generator
) -> Iterator[Sample]:
    """The steps of a server that always has ``requests`` in flight.

    Running requests come first, in the order they came, then waiting ones while tokens, rows and
    KV blocks last; a long prompt is computed in chunks. When a request ends, another one comes, and
    in the beginning they are anywhere in their answers. Lengths beyond ``max_model_len`` are cut. A
    request is admitted when the blocks it has at its end are free, so none is preempted. With
    speculation every draft is rejected, which makes the most steps. From the steps between two
    changes of the rows, which differ by a token per row, one is drawn.
    """
    draw = _Requests(traffic, limits)
    prompt, end, done = draw.under_way(requests, random)
    running = 0
    size, longest = limits.block_size, limits.max_model_len
    for _ in range(samples):
        prefill = done < prompt
        left = np.where(prefill, prompt - done, np.minimum(limits.query_len, longest - done))
        before = np.cumsum(left) - left
        scheduled = np.minimum(left, np.maximum(0, limits.max_num_batched_tokens - before))
        place = np.arange(len(end))
        # The first request may need more blocks than were planned for; it runs alone.
        fits = (np.cumsum(-(-end // size)) <= limits.decode_blocks) | (place == 0)
        admitted = (place < running) | (fits & (place < limits.max_num_seqs))
        rows = np.logical_and.accumulate(admitted & (scheduled > 0))
        running = max(running, int(np.count_nonzero(rows)))
        alike = 1 if (rows & prefill).any() else int((end - done)[rows].min())
        computed = done[rows] + int(random.integers(alike))
        # Drafts end at the model length.
        yield Sample(np.minimum(scheduled[rows], longest - computed), computed, alike)
        done = done + rows * np.where(prefill, scheduled, alike)
        stays = done < end
        ended = int(np.count_nonzero(~stays))
        if ended:
            running -= ended
            prompt, end, done = (
                np.concatenate([old[stays], new])
                for old, new in zip((prompt, end, done), draw.new(ended, random), strict=True)
            )


class _Requests:
    """Draws requests: prompt tokens, what a request has computed at its end, and in the beginning.

    The last token is sampled and never computed, so 5 tokens in and 3 out end at 7.
    """

    def __init__(self, traffic: Traffic, limits: Limits) -> None:
        number = np.array([length.number for length in traffic.lengths], np.float64)
        given = np.array([length.input for length in traffic.lengths], np.int64)
        output = np.array([length.output for length in traffic.lengths], np.int64)
        cached = np.array([length.cached for length in traffic.lengths], np.int64)
        self.prompt = np.minimum(given, limits.max_model_len)
        self.end = np.minimum(self.prompt + output - 1, limits.max_model_len)
        # A prefix cache holds whole blocks, and never the last token.
        whole = np.minimum(cached, self.prompt - 1) // limits.block_size
        self.cached = whole * limits.block_size
        self.share = number / number.sum()
        # A request is present in the steps of its chunks and of its tokens after the first.
        chunks = -(-(self.prompt - self.cached) // limits.max_num_batched_tokens)
        present = self.share * (chunks + self.end - self.prompt)
        self.present = present / present.sum()

    def new(self, number: int, random: np.random.Generator) -> tuple[Integers, Integers, Integers]:
        chosen = random.choice(len(self.share), number, p=self.share)
        return self.prompt[chosen], self.end[chosen], self.cached[chosen]

    def under_way(
        self, number: int, random: np.random.Generator
    ) -> tuple[Integers, Integers, Integers]:
        """Requests at any moment of their answers, as an observer finds them."""
        chosen = random.choice(len(self.present), number, p=self.present)
        prompt, end = self.prompt[chosen], self.end[chosen]
        done = prompt + (random.random(number) * (end - prompt)).astype(np.int64)
        return prompt, end, np.where(done < end, done, self.cached[chosen])


def _merged(loads: tuple[Load, ...]) -> list[Load]:
    """At most ``_MOST_LOADS`` loads: neighbours are merged into their mean, weighted by share."""
    ordered = sorted(loads)
    if len(ordered) <= _MOST_LOADS:
        return ordered
    requests = np.array([load.requests for load in ordered], np.float64)
    share = np.array([load.share for load in ordered])
    # Equal numbers of loads, not equal shares: rare loads have steps of their own.
    parts = np.array_split(np.arange(len(ordered)), _MOST_LOADS)
    return [
        Load(
            max(1, round(float(np.average(requests[part], weights=share[part])))),
            float(share[part].sum()),
        )
        for part in parts
    ]
