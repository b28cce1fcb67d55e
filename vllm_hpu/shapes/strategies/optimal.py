"""The plan of least expected cost for some traffic and a budget."""

from collections.abc import Iterable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from vllm_hpu.shapes.budget import PlanBudget
from vllm_hpu.shapes.cost import PREDICTED_GRAPH, GraphPrice, exact
from vllm_hpu.shapes.demand import Demand, demand_of
from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.kinds import Sizes, key_of, kind_of, largest_sizes, sizes_of
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.plan import Cost
from vllm_hpu.shapes.select import Pool, select
from vllm_hpu.shapes.simulate import DEFAULT_STEPS
from vllm_hpu.shapes.traffic import Traffic

# Sizes to choose from in every dimension of a kind: see ``vllm_hpu.shapes.kinds.sizes_of``.
_CANDIDATES = {"decode": (48, 48), "prefill": (48, 16), "cached prefill": (24, 8, 28)}
# A key must save this part of all costs. At 25 s of compilation it pays back in a day under load.
LEAST_GAIN = 1e-4


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
        samples: int = DEFAULT_STEPS,
    ) -> None:
        """
        traffic: None for ``vllm_hpu.shapes.mix.default_traffic``.
        budget: None for the default one.
        price: what compiling and keeping a graph takes.
        samples: how many steps to simulate.
        """
        self.traffic = traffic
        self.samples = samples
        self.most = (budget or PlanBudget()).most(price)

    def keys(self, limits: Limits, cost: Cost) -> Iterable[GraphKey]:
        """The chosen keys. A budget below the few that cover all steps is exceeded by them."""
        demand = demand_of(self.traffic, limits, cost, self.samples)
        kinds = [
            _Kind(limits, cost, demand, kind, largest)
            for kind, largest in largest_sizes(limits).items()
        ]
        select([kind.pool for kind in kinds], self.most, LEAST_GAIN)
        return [key for kind in kinds for key in kind.chosen()]


class _Kind:
    """The keys of one kind that could be chosen."""

    def __init__(
        self, limits: Limits, cost: Cost, demand: Demand, kind: str, largest: Sizes
    ) -> None:
        steps = [step for step in demand if kind_of(step) == kind]
        sizes = np.array([sizes_of(step) for step in steps], np.int64).reshape(-1, len(largest))
        weights = np.array([demand[step] for step in steps], np.float64)
        work = weights * [cost(exact(step)) for step in steps]
        axes = [
            _axis(of, work, last, most)
            for of, last, most in zip(sizes.T, largest, _CANDIDATES[kind], strict=True)
        ]
        # Steps between the same candidate sizes are one: no plan can tell them apart.
        places = np.stack(
            [np.searchsorted(axis, of) for axis, of in zip(axes, sizes.T, strict=True)], axis=1
        )
        cells, cell_of = np.unique(places, axis=0, return_inverse=True)
        keys = [
            key_of(limits, kind, corner) for corner in product(*(axis.tolist() for axis in axes))
        ]
        shape = [len(axis) for axis in axes]
        self._keys = np.array(keys, object).reshape(shape)
        prices = np.array([cost(key) for key in keys]).reshape(shape)
        often = np.bincount(cell_of.ravel(), weights, len(cells)).astype(np.float64)
        self.pool = Pool(prices, cells, often)

    def chosen(self) -> list[GraphKey]:
        return [self._keys[tuple(place)] for place in self.pool.chosen]


def _axis(
    sizes: NDArray[np.int64], work: NDArray[np.float64], last: int, most: int
) -> NDArray[np.int64]:
    """About ``most`` of ``sizes``, and ``last``: all of them, or those among which work is spread.

    A quarter of them part the logarithms of the sizes evenly, the others the work.
    """
    found, place = np.unique(sizes, return_inverse=True)
    if len(found) > most:
        done = np.cumsum(np.bincount(place, work))
        few = most // 4
        evenly = np.searchsorted(done, np.linspace(0, done[-1], most - few + 1)[1:])
        powers = np.geomspace(max(1, found[0]), found[-1], few)
        chosen = np.concatenate([evenly, np.searchsorted(found, powers)])
        found = found[np.unique(np.minimum(chosen, len(found) - 1))]
    return np.unique(np.append(found, last))
