"""A rank that is killed is reported to the others within two seconds, wherever they are."""

import pytest

from . import hccl_death_cases as cases
from .conftest import emulated_only
from .test_hccl import free_port

pytestmark = emulated_only

LAZY = {"PT_HPU_LAZY_MODE": "1", "PT_HPU_ENABLE_LAZY_COLLECTIVES": "true"}


def check(case, size=3, **environment):
    outcome, victim = cases.kill_one_of(size, case, free_port(), **environment)
    assert sorted(outcome) == [r for r in range(size) if r != cases.VICTIM]
    for rank, (error, seconds, exit_code) in outcome.items():
        expected = f"DistBackendError: hccl: rank 1 (process {victim}) has died. Collectives"
        assert error.startswith(expected), (rank, error)
        # Half a second of it is sleep in some cases.
        assert seconds < 2, (rank, seconds)
        assert exit_code == 0, rank


def test_a_killed_rank_is_reported_within_two_seconds():
    check(cases.pending_all_reduce)


@pytest.mark.slow
def test_inside_a_graph():
    check(cases.in_a_graph, **LAZY)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [cases.idle, cases.asynchronous, cases.receiving, cases.smaller_group]
)
def test_other_ways_of_waiting(case):
    check(case)


@pytest.mark.slow
def test_eight_ranks():
    check(cases.pending_all_reduce, size=8)
