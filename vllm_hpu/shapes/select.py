"""Choosing keys so that expected steps cost little: greedy, then moved to better sizes.

What a set of keys saves against one key for all steps is a monotone submodular function: a further
key saves less, the more keys there are. Taking the key that saves most, again and again, therefore
saves at least 1 - 1/e of the most possible (Nemhauser, Wolsey and Fisher, "An analysis of
approximations for maximizing submodular set functions", Mathematical Programming 14, 1978). And
what a key saved once bounds what it saves later, so few have to be looked at again (Minoux,
"Accelerated greedy algorithms for maximizing submodular set functions", 1978). Moving single keys
to neighbouring sizes improves that further. A larger budget continues the path of a smaller one, so
it never costs more.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Keys are moved whenever so many were added.
_ROUND = 24
# Keys whose saving is computed at once.
_BATCH = 64
# What a change must save of the whole to be more than a rounding error.
_NOTHING = 1e-12


class Pool:
    """Keys of one kind on a grid of sizes, and what steps cost with those chosen.

    Attributes:
        chosen: places on the grid, [dimensions] each; the first is the last of all, which takes
            every step.
    """

    def __init__(self, costs: Floats, places: Integers, weights: Floats) -> None:
        """
        costs: one dimension for each size, increasing; what a launch of the key at a place costs.
        places: [steps, dimensions], the least place whose key takes a step.
        weights: [steps], how often each step occurs.
        """
        self._costs, self._places, self._weights = costs, places, weights
        last = np.array(costs.shape, np.int64) - 1
        self.chosen: list[Integers] = []
        self._columns = np.empty((0, len(places)))
        # Against the largest key alone, a key saves the difference on all steps it takes.
        taken = np.zeros(costs.shape)
        np.add.at(taken, tuple(places.T), weights)
        for axis in range(taken.ndim):
            taken = taken.cumsum(axis)
        self._most = (taken * np.maximum(costs[tuple(last)] - costs, 0.0)).ravel()
        self._bounds = self._most.copy()
        self.add(last)

    @property
    def cost(self) -> float:
        """What the steps cost with the chosen keys."""
        return float(self._weights @ self._now)

    def _cost_in(self, keys: Integers) -> Floats:
        """[keys, steps]: what each step costs in each of the keys at places ``keys``."""
        takes = (self._places[None] <= keys[:, None]).all(-1)
        return np.where(takes, self._costs[tuple(keys.T)][:, None], np.inf)

    def _saved(self, now: Floats, keys: Integers) -> Floats:
        """[keys]: what each key would save of steps that cost ``now``."""
        saved: Floats = np.maximum(now - self._cost_in(keys), 0.0) @ self._weights
        return saved

    def best(self) -> tuple[float, Integers]:
        """The most that a further key saves, and its place."""
        while True:
            count = min(_BATCH, self._bounds.size)
            top = np.argpartition(-self._bounds, count - 1)[:count]
            keys = np.stack(np.unravel_index(top, self._costs.shape), axis=1)
            saved = self._saved(self._now, keys)
            self._bounds[top] = saved
            first = int(saved.argmax())
            if saved[first] >= self._bounds.max():
                return float(saved[first]), keys[first]

    def add(self, key: Integers) -> None:
        self.chosen.append(key)
        self._columns = np.concatenate([self._columns, self._cost_in(key[None])])
        self._now = self._columns.min(axis=0)

    def move(self) -> None:
        """Move each added key to the neighbouring place that saves most, while that saves more."""
        offsets = np.array(list(product((-1, 0, 1), repeat=self._costs.ndim)))
        most = np.array(self._costs.shape) - 1
        for index in range(1, len(self.chosen)):
            without = np.delete(self._columns, index, axis=0).min(axis=0)
            while True:
                near = self.chosen[index] + offsets
                near = near[((near >= 0) & (near <= most)).all(-1)]
                saved = self._saved(without, near)
                here = float(saved[(near == self.chosen[index]).all(-1)][0])
                best = int(saved.argmax())
                if saved[best] <= here + _NOTHING * self.cost:
                    break
                self.chosen[index] = near[best]
            self._columns[index] = self._cost_in(self.chosen[index][None])[0]
        self._now = self._columns.min(axis=0)
        # Other keys are chosen now, so what was saved beside the former ones bounds nothing.
        self._bounds = self._most.copy()


def select(pools: Sequence[Pool], most: int | None, least_gain: float) -> None:
    """Add keys to ``pools`` until they have ``most`` or a further one saves too little.

    most: None for no limit; the first key of each pool is there anyway.
    least_gain: what a key must save of all costs.
    """
    count = len(pools)
    offers = [pool.best() for pool in pools]
    while most is None or count < most:
        index = max(range(len(pools)), key=lambda index: offers[index][0])
        gain, key = offers[index]
        if gain <= max(least_gain, _NOTHING) * sum(pool.cost for pool in pools):
            return
        pools[index].add(key)
        count += 1
        offers[index] = pools[index].best()
        if count % _ROUND == 0:
            for pool in pools:
                pool.move()
            offers = [pool.best() for pool in pools]
