"""Budgets of a plan."""

import pytest

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.shapes.budget import PlanBudget
from vllm_hpu.shapes.cost import PREDICTED_GRAPH, GraphPrice

PRICE = GraphPrice(seconds=10.0, bytes=1 << 20, source="by hand")


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("60 graphs", PlanBudget(60)),
        ("90s", PlanBudget(None, 90)),
        ("1.5 min", PlanBudget(None, 90)),
        ("2 h", PlanBudget(None, 7200)),
        ("8 GiB", PlanBudget(None, None, 8 << 30)),
        (" 512 MIB ,20 min, 7graphs", PlanBudget(7, 1200, 512 << 20)),
    ],
)
def test_budgets_are_read(text: str, budget: PlanBudget) -> None:
    assert PlanBudget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "many", "60", "graphs", "-1 s", "1 GB", "1 s,", "1.s", "s 2"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"graphs, s, min, h, MiB, GiB.*PLAN_BUDGET"):
        PlanBudget.parse(text)


def test_the_scarcest_counts() -> None:
    assert PlanBudget(7).most(PRICE) == 7
    assert PlanBudget(None, 95).most(PRICE) == 9
    assert PlanBudget(None, None, 5 << 20).most(PRICE) == 5
    assert PlanBudget(7, 95, 5 << 20).most(PRICE) == 5
    assert PlanBudget(3, 95, 5 << 20).most(PRICE) == 3
    assert PlanBudget(0).most(PRICE) == 0
    assert PlanBudget(None).most(PRICE) is None


def test_defaults() -> None:
    assert PlanBudget().most() == 100
    assert PlanBudget(None, 10 * PREDICTED_GRAPH.seconds).most() == 10
