"""Kemeny's rule: the order that contradicts the tasks least.

The cost of an order is the sum, over all pairs that it puts as a before b, of W(b, a), the weight of the tasks on which b is
better than a. So ties and missing scores cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedagg.report.measures import Floats
from fedagg.report.voting.ballots import ROUNDING, read, wins

MAX_MODELS = 16


def kemeny(scores: ArrayLike, weights: ArrayLike | None = None, max_models: int = MAX_MODELS) -> Floats:
    """Places in the order of least cost: n - 1 for its first model, 0 for its last. Of several optima the smallest, as a list.

    Exact, by dynamic programming over subsets of models: time O(2^n n), memory 8 n 2^n bytes.

    Raises:
        ValueError: more than ``max_models`` models.

    Example:
        >>> kemeny([[1, 2, 2], [2, 3, 1], [3, 1, 3]]).tolist()
        [0.0, 1.0, 2.0]
    """
    costs = _costs("kemeny", scores, weights, max_models)
    return _as_scores(Subsets(costs).order())


def kemeny_places(scores: ArrayLike, weights: ArrayLike | None = None, max_models: int = MAX_MODELS) -> NDArray[np.int64]:
    """The best place, from 1, of each model in any of the orders of least cost: those at 1 all may stand first.

    Raises:
        ValueError: more than ``max_models`` models.
    """
    return Subsets(_costs("kemeny_places", scores, weights, max_models)).places()


def kemeny_cost(order: Sequence[int], scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The cost of an order of all models, best first.

    Raises:
        ValueError: ``order`` does not name every model once.
    """
    costs = _costs("kemeny_cost", scores, weights, None)
    if sorted(order) != list(range(len(costs))):
        raise ValueError(f"kemeny_cost needs an order that names each of {len(costs)} models once; got {list(order)}")
    return cost_of(order, costs)


def kemeny_heuristic(scores: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Places as of :func:`kemeny`, in an order of low cost that nothing proves to be the lowest: for many models.

    Local search: while taking out one model and putting it elsewhere lowers the cost, the move that lowers it most is made. It
    starts from Borda's order and from the order of every task, and keeps the best that it ends in; nothing is random. A step
    takes O(n^2) time.
    """
    costs = _costs("kemeny_heuristic", scores, weights, None)
    table = np.nan_to_num(np.asarray(scores, np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    starts = [costs.sum(axis=1) - costs.sum(axis=0), *(-table.T)]
    ends = [descend(np.argsort(start, kind="stable"), costs) for start in starts]
    return _as_scores(min(ends, key=lambda order: cost_of(order, costs)))


def cost_of(order: Sequence[int], costs: Floats) -> float:
    """The cost of an order, where ``costs[a, b]`` is that of putting a before b."""
    return float(np.triu(costs[np.ix_(order, order)], 1).sum())


class Subsets:
    """All orders of n items, of which the cheapest are found subset by subset.

    Args:
        costs: [n, n], what it costs to put the row before the column; may be negative; the diagonal is 0.
    """

    def __init__(self, costs: Floats) -> None:
        self.n = n = len(costs)
        self.slack = ROUNDING * max(np.abs(costs).sum(), 1e-300)
        self.before = np.zeros((1 << n, n))  # [S, i]: the cost of i before all of S
        for item in range(n):
            self.before[1 << item : 2 << item] = self.before[: 1 << item] + costs[:, item]
        self.least = np.full(1 << n, np.inf)  # [S]: the cost of the best order of S
        self.least[0] = 0.0
        for layer in _by_size(n)[1:]:
            self.least[layer] = self._ends(layer).min(axis=1)

    def order(self) -> list[int]:
        """A cheapest order; of several the smallest as a list."""
        found, left = [], (1 << self.n) - 1
        while left:
            found.append(int(np.argmax(self._optimal(np.array([left]))[0])))
            left ^= 1 << found[-1]
        return found

    def places(self) -> NDArray[np.int64]:
        """The best place, from 1, of each item in any cheapest order."""
        places = np.full(self.n, self.n)
        left = np.array([(1 << self.n) - 1])
        for place in range(1, self.n + 1):
            rows, items = np.nonzero(self._optimal(left))
            places[items] = np.minimum(places[items], place)
            left = np.unique(left[rows] ^ (1 << items))
        return places

    def _ends(self, subsets: NDArray[np.int64]) -> Floats:
        """[S, i]: the cost of the best order of S that begins with i; infinite if i is not in S."""
        items = np.arange(self.n)
        rest = subsets[:, None] & ~(1 << items)
        inside = (subsets[:, None] >> items) & 1 == 1
        return np.where(inside, self.least[rest] + self.before[rest, items], np.inf)

    def _optimal(self, subsets: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(self._ends(subsets) <= self.least[subsets][:, None] + self.slack)


@lru_cache(maxsize=4)
def _by_size(n: int) -> list[NDArray[np.int64]]:
    """The subsets of n items as bit masks, in lists by their size."""
    sizes = np.zeros(1, np.int64)
    for _ in range(n):
        sizes = np.concatenate([sizes, sizes + 1])
    return [np.flatnonzero(sizes == size) for size in range(n + 1)]


def descend(order: NDArray[np.int64], costs: Floats) -> list[int]:
    """Where local search ends: no item put elsewhere makes the order cheaper; ``costs[a, b]`` is that of a before b."""
    gain = costs - costs.T  # of a before b over b before a
    slack = ROUNDING * max(np.abs(costs).sum(), 1e-300)
    n = len(order)
    right = np.arange(n)[None] > np.arange(n)[:, None]
    while True:
        ours = gain[np.ix_(order, order)]
        passed = np.cumsum(ours, axis=1)
        change = np.diagonal(passed)[:, None] - passed + np.where(right, 0.0, ours)  # [from, to]
        start, end = divmod(int(change.argmin()), n)
        if change[start, end] >= -slack:
            return list(map(int, order))
        order = np.insert(np.delete(order, start), end, order[start])


def _costs(rule: str, scores: ArrayLike, weights: ArrayLike | None, most: int | None) -> Floats:
    table, w = read(rule, scores, weights, holes=True)
    if table.ndim > 2:
        raise ValueError(f"{rule} needs one table [models, tasks]; got shape {table.shape}")
    if most is not None and len(table) > most:
        raise ValueError(
            f"{rule} goes through all subsets of models, so it takes at most max_models={most} of them; got {len(table)}."
            " kemeny_heuristic takes any number"
        )
    return wins(table, w).T


def _as_scores(order: Sequence[int]) -> Floats:
    scores = np.empty(len(order))
    scores[list(order)] = np.arange(len(order))[::-1]
    return scores
