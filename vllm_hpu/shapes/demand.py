"""What a plan is judged by: the steps to expect, and what they cost in it."""

from collections.abc import Callable, Mapping
from itertools import product

from vllm_hpu.shapes.cost import exact
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.mix import any_traffic, default_traffic
from vllm_hpu.shapes.plan import ShapePlan
from vllm_hpu.shapes.simulate import DEFAULT_STEPS, steps_of
from vllm_hpu.shapes.step import Step
from vllm_hpu.shapes.traffic import Traffic

Demand = Mapping[Step, float]

# How much of the work is steps of other traffic, and of all combinations of sizes, so that no plan
# is bad at what a profile did not show: it is a sample, and tomorrow is another day.
OTHERS = 0.05
APART = 0.02


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
    expected = [traffic] if traffic else default_traffic(limits)
    others = any_traffic(limits)
    groups = (
        (1 - OTHERS - APART, [steps_of(one, limits, steps // len(expected)) for one in expected]),
        (OTHERS, [steps_of(one, limits, steps // 2 // len(others)) for one in others]),
        (APART, [{step: 1.0} for step in _sizes_apart(limits)]),
    )
    found: dict[Step, float] = {}
    for work, samples in groups:
        for sample in samples:
            seen = {
                step: weight
                for step, weight in sample.items()
                if step.decode_blocks <= limits.decode_blocks
                and step.prefill_blocks <= limits.prefill_blocks
            }
            real = sum(weight * cost(exact(step)) for step, weight in seen.items())
            for step, weight in seen.items():
                found[step] = found.get(step, 0.0) + weight / real * work / len(samples)
    return found


def _sizes_apart(limits: Limits) -> list[Step]:
    """Steps of all combinations of sizes, each size a quarter of another, up to the largest.

    Without them a step of rare sizes might have no key but one many times as large.
    """
    blocks = _quarters(limits.decode_blocks)
    found = [
        Step(rows, rows, total, 0, 0, 0)
        for rows in _quarters(limits.max_num_seqs)
        for total in blocks
        if rows <= total <= rows * limits.blocks_per_row
    ]
    tokens = _quarters(limits.step_tokens) if limits.prefill_rows else []
    for new, decode, context in product(
        tokens, blocks if limits.mixed_blocks else [0], [0, *_quarters(limits.prefill_blocks)]
    ):
        rows = min(1, decode)
        if new > rows and (not context or new <= context * limits.block_size):
            found.append(Step(rows, rows, decode, 1, new - rows, context))
    return found


def _quarters(last: int) -> list[int]:
    """``last``, a quarter of it, and so on down to 1."""
    return [last >> shift for shift in range(0, last.bit_length(), 2)]


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
