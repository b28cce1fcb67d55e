"""The model of the scheduler, by hand where it can be followed, and its promises elsewhere."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_hpu.shapes import Limits, Step
from vllm_hpu.shapes.mix import any_traffic, default_traffic, log_normal
from vllm_hpu.shapes.simulate import Sample, simulate, steps_of
from vllm_hpu.shapes.traffic import Length, Load, Traffic

LIMITS = Limits(max_num_seqs=4, max_num_batched_tokens=64, max_model_len=256, block_size=16)


def one(given: int, output: int, cached: int = 0, requests: int = 1) -> Traffic:
    return Traffic((Length(given, output, 1, cached),), (Load(requests, 1),))


def run(traffic: Traffic, requests: int, samples: int, of: Limits = LIMITS) -> list[Sample]:
    return list(simulate(traffic, requests, of, samples, np.random.default_rng(3)))


def plain(sample: Sample) -> tuple[list[int], list[int], int]:
    return sample.scheduled.tolist(), sample.computed.tolist(), sample.steps


def test_one_request_after_another() -> None:
    """A prompt of 150 tokens takes three steps, the last of which yields the first of 9 tokens."""
    first, *rest = run(one(150, 9), 1, 9)
    # The first one is found somewhere in its answer.
    assert first.scheduled.tolist() == [1]
    assert 150 <= first.computed[0] < 158
    for start in (0, 4):
        chunks = [plain(sample) for sample in rest[start : start + 3]]
        assert chunks == [([64], [0], 1), ([64], [64], 1), ([22], [128], 1)]
        decode = rest[start + 3]
        # Its 8 further tokens take 8 steps alike, of which one stands for all.
        assert (decode.scheduled.tolist(), decode.steps) == ([1], 8)
        assert 150 <= decode.computed[0] < 158


def test_a_request_for_one_token_only_prefills() -> None:
    samples = run(one(20, 1), 1, 3)
    assert [plain(sample) for sample in samples] == [([20], [0], 1)] * 3


def test_cached_prompts_start_behind_whole_blocks() -> None:
    assert [plain(sample) for sample in run(one(40, 1, 39), 1, 2)] == [([8], [32], 1)] * 2
    assert [plain(sample) for sample in run(one(32, 1, 31), 1, 1)] == [([16], [16], 1)]
    assert [plain(sample) for sample in run(one(17, 1, 16), 1, 1)] == [([1], [16], 1)]


def test_lengths_end_at_the_model_length() -> None:
    samples = run(one(1000, 50), 1, 4)
    assert [plain(sample) for sample in samples] == [([64], [64 * n], 1) for n in range(4)]
    samples = run(one(250, 50), 1, 6)
    assert samples[-1].steps == 6
    assert max(int(sample.computed[0]) for sample in samples) < 256


def test_tokens_are_shared_in_order() -> None:
    """Two prompts of 40 tokens in steps of 64: the second one is cut."""
    samples = run(one(40, 1), 2, 3)
    assert [plain(sample) for sample in samples] == [
        ([40, 24], [0, 0], 1),
        ([16, 40], [24, 0], 1),
        ([40, 24], [0, 0], 1),
    ]


def test_rows_and_blocks_limit_who_is_admitted() -> None:
    assert {len(sample.scheduled) for sample in run(one(4, 3), 20, 50)} <= {1, 2, 3, 4}
    few = Limits(4, 64, 256, 16, max_decode_blocks=5)
    # Each request fills two blocks at its end.
    assert max(len(sample.scheduled) for sample in run(one(17, 9), 20, 50, few)) == 2
    assert max(len(sample.scheduled) for sample in run(one(16, 1), 20, 50, few)) == 4
    # One that alone needs more than there are still runs.
    assert {len(sample.scheduled) for sample in run(one(100, 9), 20, 50, few)} == {1}


def test_speculation_computes_drafts_and_keeps_one_token() -> None:
    drafts = Limits(4, 64, 256, 16, query_len=3)
    samples = run(one(10, 4), 1, 3, drafts)
    assert samples[1].scheduled.tolist() == [10]
    assert (samples[2].scheduled.tolist(), samples[2].steps) == ([3], 3)
    # They end at the model length: 6 steps from 250 on, each of at most the tokens that are left.
    long = [sample for sample in run(one(250, 7), 1, 60, drafts) if sample.computed[0] >= 250]
    assert {int(sample.scheduled[0]) for sample in long} == {1, 2, 3}
    assert all(sample.scheduled[0] == min(3, 256 - sample.computed[0]) for sample in long)


LENGTHS = st.builds(
    lambda given, output, cached: Length(given, output, 1, min(cached, given - 1)),
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(0, 300),
)


@given(
    st.lists(LENGTHS, min_size=1, max_size=4),
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(0, 100),
    st.integers(1, 300),
    st.integers(1, 4),
    st.none() | st.integers(1, 40),
)
def test_steps_stay_within_the_limits(
    lengths: list[Length],
    requests: int,
    seqs: int,
    more: int,
    longest: int,
    query_len: int,
    blocks: int | None,
) -> None:
    of = Limits(seqs, seqs + more, longest, 16, query_len, blocks)
    traffic = Traffic(tuple(lengths), (Load(requests, 1),))
    for sample in run(traffic, requests, 12, of):
        new, old = sample.scheduled, sample.computed
        assert 1 <= len(new) <= min(seqs, requests)
        assert new.min() >= 1
        assert old.min() >= 0
        assert new.sum() <= of.max_num_batched_tokens
        assert (new + old).max() <= longest
        assert sample.steps >= 1
        used = int((-(-(new + old) // 16)).sum())
        # Drafts may begin a block that the answer does not reach.
        assert len(new) == 1 or used <= of.decode_blocks + len(new) * (query_len > 1)


def test_shares_of_steps() -> None:
    steps = steps_of(Traffic((Length(8, 5, 1),), (Load(1, 3), Load(3, 1))), LIMITS, number=200)
    assert math.isclose(sum(steps.values()), 1.0)
    alone = sum(share for step, share in steps.items() if step.rows == 1)
    assert math.isclose(alone, 0.75, abs_tol=0.01)
    # A request has one step of prefill and four of decode.
    prefill = steps[Step(0, 0, 0, 1, 8, 0)]
    assert prefill == pytest.approx(0.75 / 5, rel=0.05)
    assert steps == steps_of(
        Traffic((Length(8, 5, 1),), (Load(3, 1), Load(1, 3))), LIMITS, number=200
    )


def test_many_loads_are_merged() -> None:
    """A load of 1 to 96: the steps are about those of 32 loads, and weights stay."""
    of = Limits(96, 960, 256, 16)
    loads = tuple(Load(n, 1.0 + (n > 48)) for n in range(1, 97))
    steps = steps_of(Traffic((Length(4, 200, 1),), loads), of, number=320)
    rows = {step.rows for step in steps}
    assert len(rows) <= 40
    mean = sum(step.rows * share for step, share in steps.items())
    assert mean == pytest.approx(
        sum(load.requests * load.share for load in loads) / sum(load.share for load in loads),
        rel=0.02,
    )


def test_log_normal_quantiles() -> None:
    values = log_normal(100, 1.0)
    assert values == sorted(values)
    assert len(values) == 8
    assert math.sqrt(values[3] * values[4]) == pytest.approx(100, rel=0.01)
    # A standard deviation of 1 spreads five sixths of the values over a factor of 16.
    assert values[-1] / values[0] == pytest.approx(math.exp(2 * 1.5341), rel=0.02)
    assert log_normal(0.01, 0.1) == [1] * 8


@pytest.mark.parametrize(
    "of", [LIMITS, Limits(1, 1, 1, 16), Limits(256, 8192, 32768, 128), Limits(3, 9, 20, 4)]
)
def test_default_and_any_traffic_suit_the_limits(of: Limits) -> None:
    servers = default_traffic(of)
    assert len(servers) == 4
    for server in servers:
        loads = [load.requests for load in server.concurrency]
        assert loads[0] == 1
        assert abs(loads[-1] - of.max_num_seqs * 1.5) <= 0.5
        assert len(loads) <= 24
        # As much above the middle, in octaves, as below.
        low = sum(load.share for load in server.concurrency if load.requests**2 < loads[-1])
        high = sum(load.share for load in server.concurrency if load.requests**2 > loads[-1])
        assert abs(low - high) <= 2
    assert sum(length.number for length in servers[-1].lengths) == pytest.approx(64.0)
    assert any(length.cached for length in servers[1].lengths)
    assert not any(length.cached for length in servers[0].lengths)
    others = [length for server in any_traffic(of) for length in server.lengths]
    assert max(length.input for length in others) == of.max_model_len
    assert min(length.input for length in others) <= 16
    assert len(any_traffic(of)) <= 12
