"""The comparison of plans: the other plugin's known figures, and the goal of ours."""

import numpy as np
import pytest

from benchmarks.plans import (
    CHAT,
    COST,
    DOCUMENTS,
    Buckets,
    Mix,
    exponential_buckets,
    geometric_sizes,
    linear_buckets,
    results,
)
from vllm_hpu.shapes import GraphKey


def test_the_known_numbers_of_graphs() -> None:
    """Published in vllm-project/vllm-gaudi issue 762 for the same limits."""
    exponential, linear = exponential_buckets(), linear_buckets()
    assert (len(exponential.prompts), len(exponential.decodes)) == (120, 81)
    assert (len(linear.prompts), len(linear.decodes)) == (14_368, 4_042)


def test_geometric_sizes() -> None:
    assert geometric_sizes(128, 128, 8192, 13) == [
        128, 256, 384, 512, 768, 1024, 1536, 2048, 2944, 4096, 5888, 8192,
    ]  # fmt: skip
    assert geometric_sizes(1, 2, 256, 9) == [1, 2, 4, 8, 14, 24, 42, 78, 140, 256]


def test_a_step_of_the_other_plugin_by_hand() -> None:
    buckets = Buckets([(256, 0), (256, 8), (512, 8)], [(2, 8), (4, 8)])
    # Three decode rows with 1 + 2 + 2 blocks, a prompt of 200 tokens, and 300 behind 5 blocks.
    rows = np.array([1, 1, 1, 200, 300]), np.array([3, 128, 200, 0, 5 * 128])
    pair = COST.useful_flops(1, 1) - COST.useful_flops(1, 0)
    token = COST.useful_flops(1, 0) - pair
    expected = COST.key(GraphKey(4, 4, 8, False, 0)).flops
    expected += 256 * token + pair * 256 * 257 / 2
    expected += 512 * token + pair * 512 * (8 * 128 + 512)
    assert buckets.flops(rows) == pytest.approx(expected)
    assert buckets.missed == 0
    beyond = np.array([600]), np.array([0])
    assert buckets.flops(beyond) == pytest.approx(600 * token + pair * 600 * 601 / 2)
    assert buckets.missed == 1


@pytest.mark.parametrize("mix", [CHAT, DOCUMENTS], ids=lambda mix: mix.name)
def test_the_goal(mix: Mix) -> None:
    """At most 100 graphs and half the padding of the other plugin's exponential plan."""
    first, *_, ours = results(mix, seed=0)
    assert first.plan == "vllm-gaudi exp"
    assert ours.plan == "opt, profile, ops"
    assert ours.graphs <= 100
    assert ours.padded <= first.padded / 2
    assert ours.missed == 0
    assert ours.needed == first.needed < ours.exact < ours.launched
