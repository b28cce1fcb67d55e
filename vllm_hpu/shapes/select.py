"""Choosing keys so that expected steps cost little: greedy, with exchanges.

What a set of keys saves against one key for all steps is a monotone submodular function: a further
key saves less, the more keys there are. Taking the key that saves most, again and again, therefore
saves at least 1 - 1/e of the most possible (Nemhauser, Wolsey and Fisher, "An analysis of
approximations for maximizing submodular set functions", Mathematical Programming 14, 1978).
Exchanging single keys improves that further. A larger budget continues the path of a smaller one,
so it never costs more.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Exchanges follow each of so many additions.
_ROUND = 16
# What a change must save of the whole to be more than a rounding error.
_NOTHING = 1e-12


class Pool:
    """Keys of one kind to choose from, by index, and what steps cost with those chosen.

    Attributes:
        chosen: the last key, which must take every step, and those added.
    """

    def __init__(self, weights: Floats, costs: Floats) -> None:
        """
        weights: [steps], how often each step occurs.
        costs: [steps, keys], what a step costs in a key; infinite where it does not fit.
        """
        self._weights = weights
        self._costs = costs
        self.chosen = [costs.shape[1] - 1]
        self._now = costs[:, -1]
        self.gains = self._saved(self._now)

    @property
    def cost(self) -> float:
        """What the steps cost with the chosen keys."""
        return float(self._weights @ self._now)

    def _saved(self, now: Floats) -> Floats:
        """[keys]: what each key would save of steps that cost ``now``."""
        gains: Floats = self._weights @ np.maximum(now[:, None] - self._costs, 0.0)
        return gains

    def add(self, key: int) -> None:
        self.chosen.append(key)
        self._now = np.minimum(self._now, self._costs[:, key])
        self.gains = self._saved(self._now)

    def exchange(self) -> None:
        """Replace each added key by the one that saves most in its place, if that saves more."""
        for place, key in enumerate(self.chosen[1:], start=1):
            others = [other for other in self.chosen if other != key]
            without = self._costs[:, others].min(axis=1)
            gains = self._saved(without)
            best = int(gains.argmax())
            if gains[best] > gains[key] + _NOTHING * self.cost:
                self.chosen[place] = best
                self._now = np.minimum(without, self._costs[:, best])
        self.gains = self._saved(self._now)


def select(pools: Sequence[Pool], most: int | None, least_gain: float) -> None:
    """Add keys to ``pools`` until they have ``most`` or a further one saves too little.

    most: None for no limit; the first key of each pool is there anyway.
    least_gain: what a key must save of all costs.
    """
    count = sum(len(pool.chosen) for pool in pools)
    while most is None or count < most:
        pool = max(pools, key=lambda pool: float(pool.gains.max()))
        key = int(pool.gains.argmax())
        if pool.gains[key] <= max(least_gain, _NOTHING) * sum(pool.cost for pool in pools):
            return
        pool.add(key)
        count += 1
        if count % _ROUND == 0:
            for each in pools:
                each.exchange()
