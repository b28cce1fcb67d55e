"""Strategies choose the sizes of a plan: ``vllm_hpu.shapes.grid.Grids`` says which."""

from collections.abc import Mapping

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.shapes.plan import Strategy
from vllm_hpu.shapes.strategies.exponential import Exponential
from vllm_hpu.shapes.strategies.linear import Linear

NAMES = {"exp": "doubling sizes (default)", "lin": "equal steps, set by the bucket variables"}


def strategy_named(name: str, variables: Mapping[str, int]) -> Strategy:
    """The strategy ``VLLM_BUCKETING_STRATEGY`` names.

    variables: the ``VLLM_{PROMPT,DECODE}_*_BUCKET_*`` variables the user set, by name. Exponential
    grids have no use for them.
    """
    if name == "exp":
        return Exponential()
    if name == "lin":
        return Linear(variables)
    raise ConfigurationError(
        f"There is no bucketing strategy {name!r}",
        do=f"Set VLLM_BUCKETING_STRATEGY to one of: {', '.join(NAMES)}",
    )
