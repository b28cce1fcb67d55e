"""Strategies choose the keys of a plan: see ``vllm_hpu.shapes.plan.Strategy``."""

from collections.abc import Mapping
from pathlib import Path

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.shapes.budget import PlanBudget
from vllm_hpu.shapes.plan import Strategy
from vllm_hpu.shapes.strategies.exponential import Exponential
from vllm_hpu.shapes.strategies.linear import Linear
from vllm_hpu.shapes.strategies.listed import Listed
from vllm_hpu.shapes.strategies.optimal import Optimal
from vllm_hpu.shapes.strategies.padded import Padded
from vllm_hpu.shapes.traffic import Traffic

NAMES = {
    "opt": "the sizes that make expected traffic cheapest",
    "exp": "doubling sizes",
    "lin": "equal steps, set by the bucket variables",
    "pad": "equal steps without those that save little padding",
}


def strategy_named(
    name: str, variables: Mapping[str, int], file: str = "", profile: str = "", budget: str = ""
) -> Strategy:
    """The strategy ``VLLM_BUCKETING_STRATEGY`` names; "file" is that of ``file``.

    variables: the ``VLLM_{PROMPT,DECODE}_*_BUCKET_*`` variables the user set, by name; "lin" and
    "pad" use them.
    file: of buckets, for "file".
    profile: file of a traffic profile, and budget: see ``PlanBudget.parse``; for "opt". Empty for
    the default ones.

    Raises:
        ConfigurationError: another name, a file that is missing or wrong, a budget that is not
            understood.
    """
    if name == "file" and file:
        return Listed(Path(file))
    if name == "opt":
        return Optimal(
            Traffic.read(Path(profile)) if profile else None,
            PlanBudget.parse(budget) if budget else None,
        )
    if name == "exp":
        return Exponential()
    if name == "lin":
        return Linear(variables)
    if name == "pad":
        return Padded(variables)
    raise ConfigurationError(
        f"There is no bucketing strategy {name!r}",
        do=f"Set VLLM_BUCKETING_STRATEGY to one of: {', '.join(NAMES)}",
    )
