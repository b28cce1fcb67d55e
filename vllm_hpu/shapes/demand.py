"""What a plan is judged by: the steps to expect, and what they cost in it."""

from collections.abc import Callable, Mapping

from vllm_hpu.shapes.cost import exact
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.mix import any_traffic, default_traffic
from vllm_hpu.shapes.plan import ShapePlan
from vllm_hpu.shapes.simulate import DEFAULT_STEPS, steps_of
from vllm_hpu.shapes.step import Step
from vllm_hpu.shapes.traffic import Traffic

Demand = Mapping[Step, float]

# How much of the work is steps of any kind, so that no plan is bad at what traffic did not show: a
# profile is a sample, and tomorrow is another day.
ANYTHING = 0.1


def demand_of(
    traffic: Traffic | None,
    limits: Limits,
    cost: Callable[[GraphKey], float],
    steps: int = DEFAULT_STEPS,
) -> Demand:
    """The steps to plan for, with their weights: those of ``traffic``, and a few of any kind.

    Without ``traffic``, that of ``default_traffic``. The work of all steps is 1. Steps beyond what
    is planned for are left out.
    """
    found: dict[Step, float] = {}
    expected = [traffic] if traffic else default_traffic(limits)
    others = any_traffic(limits)
    for servers, work in ((expected, 1 - ANYTHING), (others, ANYTHING)):
        for server in servers:
            seen = {
                step: weight
                for step, weight in steps_of(server, limits, steps // len(servers)).items()
                if step.decode_blocks <= limits.decode_blocks
                and step.prefill_blocks <= limits.prefill_blocks
            }
            real = sum(weight * cost(exact(step)) for step, weight in seen.items())
            for step, weight in seen.items():
                found[step] = found.get(step, 0.0) + weight / real * work / len(servers)
    return found


def expected_cost(
    plan: ShapePlan, demand: Demand, cost: Callable[[GraphKey], float] | None = None
) -> float:
    """What ``demand`` costs in the graphs of ``plan``, in the unit of ``cost`` (the plan's own)."""
    price = plan.cost if cost is None else cost
    return sum(weight * price(plan.dispatch(step)) for step, weight in demand.items())


def padded_share(plan: ShapePlan, demand: Demand) -> float:
    """The part of ``expected_cost`` that is padding: 0 for graphs of exactly the steps' sizes."""
    launched = expected_cost(plan, demand)
    real = sum(weight * plan.cost(exact(step)) for step, weight in demand.items())
    return 1 - real / launched
