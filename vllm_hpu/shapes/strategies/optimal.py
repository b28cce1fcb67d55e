"""The plan of least expected cost for some traffic and a budget."""

from collections.abc import Iterable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from vllm_hpu.shapes.budget import PlanBudget
from vllm_hpu.shapes.cost import PREDICTED_GRAPH, GraphPrice, exact
from vllm_hpu.shapes.cover import Sizes, kind_of, sizes_of
from vllm_hpu.shapes.demand import Demand, demand_of
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.plan import Cost, key_of, largest_sizes
from vllm_hpu.shapes.select import Pool, select
from vllm_hpu.shapes.traffic import Traffic

# Sizes to choose from in every dimension, by the number of dimensions of a kind.
_CANDIDATES = {2: 32, 3: 12}
# A key must save this part of all costs. At 25 s of compilation it pays back in a day under load.
LEAST_GAIN = 3e-4


class Optimal:
    """Keys that make the expected steps cheapest, whatever their sizes: they form no grid.

    Sizes to choose from are those of the expected steps. One key of each kind takes the largest
    steps; the others are chosen by ``vllm_hpu.shapes.select``.
    """

    name = "optimal"

    def __init__(
        self,
        traffic: Traffic | None = None,
        budget: PlanBudget | None = None,
        price: GraphPrice = PREDICTED_GRAPH,
    ) -> None:
        """
        traffic: None for ``vllm_hpu.shapes.mix.default_traffic``.
        budget: None for the default one.
        price: what compiling and keeping a graph takes.
        """
        self.traffic = traffic
        self.most = (budget or PlanBudget()).most(price)

    def keys(self, limits: Limits, cost: Cost) -> Iterable[GraphKey]:
        """The chosen keys. A budget below the few that cover all steps is exceeded by them."""
        demand = demand_of(self.traffic, limits, cost)
        kinds = [
            _Kind(limits, cost, demand, kind, largest)
            for kind, largest in largest_sizes(limits).items()
        ]
        select([kind.pool for kind in kinds], self.most, LEAST_GAIN)
        return [kind.keys[index] for kind in kinds for index in kind.pool.chosen]


class _Kind:
    """The keys of one kind that could be chosen, the largest last."""

    def __init__(
        self, limits: Limits, cost: Cost, demand: Demand, kind: str, largest: Sizes
    ) -> None:
        steps = [step for step in demand if kind_of(step) == kind]
        sizes = np.array([sizes_of(step) for step in steps], np.int64).reshape(-1, len(largest))
        weights = np.array([demand[step] for step in steps], np.float64)
        work = weights * [cost(exact(step)) for step in steps]
        axes = [
            _axis(of, work, last, _CANDIDATES[len(largest)])
            for of, last in zip(sizes.T, largest, strict=True)
        ]
        # Steps between the same candidate sizes are one: no plan can tell them apart.
        places = [np.searchsorted(axis, of) for axis, of in zip(axes, sizes.T, strict=True)]
        cells: dict[Sizes, float] = {}
        for *place, weight in zip(*places, weights, strict=True):
            corner = tuple(int(axis[at]) for axis, at in zip(axes, place, strict=True))
            cells[corner] = cells.get(corner, 0.0) + float(weight)
        corners = list(product(*(axis.tolist() for axis in axes)))
        self.keys = [key_of(limits, kind, corner) for corner in corners]
        prices = np.array([cost(key) for key in self.keys])
        fits = (np.array(list(cells)).reshape(-1, 1, len(largest)) <= np.array(corners)).all(-1)
        self.pool = Pool(np.array(list(cells.values())), np.where(fits, prices, np.inf))


def _axis(
    sizes: NDArray[np.int64], work: NDArray[np.float64], last: int, most: int
) -> NDArray[np.int64]:
    """About ``most`` of ``sizes``, and ``last``: all of them, or those among which work is spread.

    Half of them part the work evenly, half the logarithms of the sizes.
    """
    found, place = np.unique(sizes, return_inverse=True)
    if len(found) > most:
        done = np.cumsum(np.bincount(place, work))
        evenly = np.searchsorted(done, np.linspace(0, done[-1], most // 2 + 1)[1:])
        powers = np.geomspace(max(1, found[0]), found[-1], most - most // 2)
        chosen = np.concatenate([evenly, np.searchsorted(found, powers)])
        found = found[np.unique(np.minimum(chosen, len(found) - 1))]
    return np.unique(np.append(found, last))
