"""How robust is the consensus of many rankings: how much of what was said must be said otherwise to move it.

Goibert et al., "Robust Consensus in Ranking Data Analysis: Definitions, Properties and Computational Issues", ICML 2023. The
bucket orders are ours. ``orders`` [k, m] are rankings of m items, best first, and ``probabilities`` [k] how often each is met.
Distances between orders are Kendall's: the number of pairs that they order differently.

Example: of three items, 60 % of the tasks say a b c, 20 % a c b and 20 % b c a.
    >>> orders, probabilities = [[0, 1, 2], [0, 2, 1], [1, 2, 0]], [0.6, 0.2, 0.2]
    >>> round(breakdown(orders, probabilities, delta=1), 6), round(breakdown_lower_bound(orders, probabilities), 6)
    (0.3, 0.3)
    >>> merge_buckets([[0, 1, 2], [0, 2, 1]], [0.6, 0.4], theta=0.2)
    [[0], [1, 2]]
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog

from fedagg.console import suggest
from fedagg.report.measures import Floats
from fedagg.report.voting.kemeny import MAX_MODELS, Subsets, cost_of

STATISTICS = ("kemeny", "borda")
MAX_ITEMS = 5  # of linear programmes over all orders
DIGITS = 12  # sums of probabilities that agree in so many decimals are equal

Orders = NDArray[np.int64]


def breakdown(orders: ArrayLike, probabilities: ArrayLike, delta: float, statistic: str = "kemeny") -> float:
    """The least contamination of the rankings that can move their consensus by ``delta`` or more.

    That is the least total variation distance (half of the L1 distance) of a distribution q to p for which an order at Kendall
    distance >= ``delta`` from the consensus of p is a consensus; one among several is enough. Exact: a linear programme over
    the m! orders for each order that far away.

    Args:
        orders: [k, m], best first; at most 5 items.
        probabilities: [k], summing to 1.
        delta: at most m (m - 1) / 2.
        statistic: ``kemeny``, the order of least expected distance (of several the smallest as a list); ``borda``, items by
            their mean position, ties by index.

    Raises:
        ValueError: malformed rankings, more than 5 items, a distance that no two orders have, or an unknown statistic.
    """
    rankings, p = _read("breakdown", orders, probabilities)
    m = rankings.shape[1]
    if m > MAX_ITEMS:
        raise ValueError(f"breakdown weighs all orders, so it takes at most {MAX_ITEMS} items; got {m}")
    if not delta <= m * (m - 1) / 2:
        raise ValueError(f"two orders of {m} items differ by at most {m * (m - 1) // 2} pairs; got delta={delta}")
    centre = _consensus(rankings, p, statistic)
    every = np.array(list(permutations(range(m))))
    distances = _distances(every, every)
    at = {tuple(order): number for number, order in enumerate(every.tolist())}
    mass = np.zeros(len(every))
    np.add.at(mass, [at[tuple(order)] for order in rankings.tolist()], p)
    positions = np.argsort(every, axis=1)
    far = distances[at[tuple(centre)]]
    targets = np.flatnonzero(far >= delta)
    floors = np.zeros(len(every))
    if statistic == "kemeny":  # what is moved closes the gap in cost by twice the distance at most
        costs = distances @ mass
        floors[far > 0] = (costs - costs.min())[far > 0] / (2 * far[far > 0])
    least = np.inf
    for target in targets[np.argsort(floors[targets], kind="stable")]:
        if floors[target] >= least:
            break
        if statistic == "kemeny":
            worse = distances[target] - distances
        else:
            ahead, behind = every[target][:-1], every[target][1:]
            worse = (positions[:, ahead] - positions[:, behind]).T.astype(np.float64)
        least = min(least, _contamination(mass, worse))
    return float(least)


def breakdown_lower_bound(orders: ArrayLike, probabilities: ArrayLike) -> float:
    """A contamination below which Kemeny's consensus does not move at all: mu / 2.

    mu is the least of (cost(tau) - cost(sigma)) / d(sigma, tau) over all orders tau but the consensus sigma, costs being
    expected distances. Found exactly: with a guess at mu, the order of least cost(tau) - mu d(sigma, tau) is a Kemeny
    consensus for other costs, and it is sigma itself if the guess is right (Dinkelbach's method).

    Args:
        orders: [k, m], best first; 2 to 16 items.
        probabilities: [k], summing to 1.
    """
    rankings, p = _read("breakdown_lower_bound", orders, probabilities)
    m = rankings.shape[1]
    if not 2 <= m <= MAX_MODELS:
        raise ValueError(f"breakdown_lower_bound takes 2 to {MAX_MODELS} items; got {m}")
    costs = _precedence(rankings, p).T
    solver = Subsets(costs)
    centre = solver.order()
    turned = np.zeros((m, m))  # 1 for what stands otherwise than in the consensus
    turned[np.ix_(centre, centre)] = np.tril(np.ones((m, m)), -1)
    excess, base = costs - costs.T, cost_of(centre, costs)
    mu = min(float(excess[b, a]) for a, b in pairwise(centre))  # of swapping two neighbours
    while True:
        tau = Subsets(costs - mu * turned).order()
        moved = cost_of(tau, turned)
        if not moved or (better := (cost_of(tau, costs) - base) / moved) >= mu - solver.slack:
            return mu / 2 if mu > solver.slack else 0.0
        mu = better


def merge_buckets(orders: ArrayLike, probabilities: ArrayLike, theta: float, statistic: str = "kemeny") -> list[list[int]]:
    """The consensus with neighbours tied that the rankings hardly tell apart.

    It starts with every item alone, in the order of the consensus. The lead of a bucket over the next is the mean, over a in
    the first and b in the second, of P(a before b) - 1/2. While the smallest lead (the first of equal ones) is below
    ``theta``, these two buckets become one.

    Args:
        orders: [k, m], best first; at most 16 items for Kemeny's consensus.
        probabilities: [k], summing to 1.
        theta: 0 ties nothing that a majority tells apart, more than 1/2 ties everything.
        statistic: whose consensus, as in :func:`breakdown`.

    Returns:
        ascending lists of items, the best bucket first.
    """
    rankings, p = _read("merge_buckets", orders, probabilities)
    ahead = _precedence(rankings, p)
    buckets = [[item] for item in _consensus(rankings, p, statistic)]
    while len(buckets) > 1:
        leads = [round(float(ahead[np.ix_(a, b)].mean()) - 0.5, DIGITS) for a, b in pairwise(buckets)]
        at = int(np.argmin(leads))
        if not leads[at] < theta:
            break
        buckets[at : at + 2] = [buckets[at] + buckets[at + 1]]
    return [sorted(bucket) for bucket in buckets]


def bucket_distance(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> float:
    """Hausdorff-Kendall distance between two orders with ties (Fagin et al., 2006).

    Pairs that the two order oppositely, and the greater of two numbers: pairs tied in the first alone, and in the second.

    Args:
        first: buckets of items, the best bucket first.
        second: of the same items.

    Raises:
        ValueError: an item that stands twice, or in one of the two alone.

    Example:
        >>> bucket_distance([[0], [1, 2]], [[2], [0], [1]])
        2.0
    """
    items = sorted(item for bucket in first for item in bucket)
    if len(set(items)) < len(items) or items != sorted(item for bucket in second for item in bucket):
        raise ValueError(f"bucket_distance needs the same items in both, each once; got {list(first)} and {list(second)}")
    signs = []
    for buckets in (first, second):
        place = {item: number for number, bucket in enumerate(buckets) for item in bucket}
        places = np.array([place[item] for item in items])
        signs.append(np.sign(places[:, None] - places)[np.triu_indices(len(items), 1)])
    one, other = signs
    opposite = np.count_nonzero(one * other < 0)
    only = [np.count_nonzero((one == 0) & (other != 0)), np.count_nonzero((one != 0) & (other == 0))]
    return float(opposite + max(only))


def _read(caller: str, orders: ArrayLike, probabilities: ArrayLike) -> tuple[Orders, Floats]:
    rankings, p = np.asarray(orders), np.asarray(probabilities, np.float64)
    if rankings.ndim != 2 or 0 in rankings.shape:
        raise ValueError(f"{caller} needs orders [k, m], at least one of one item; got shape {rankings.shape}")
    wrong = (np.sort(rankings, axis=1) != np.arange(rankings.shape[1])).any(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{caller}: order {row} names not each of {rankings.shape[1]} items once: {rankings[row].tolist()}")
    if p.shape != rankings.shape[:1]:
        raise ValueError(f"{caller} needs a probability for each of {len(rankings)} orders; got shape {p.shape}")
    if not (p >= 0).all() or not abs(p.sum() - 1) <= 1e-9:
        raise ValueError(f"{caller} needs probabilities >= 0 that sum to 1; got {p.tolist()}")
    return rankings.astype(np.int64), p


def _consensus(rankings: Orders, p: Floats, statistic: str) -> list[int]:
    if statistic not in STATISTICS:
        raise ValueError(f"unknown statistic {statistic!r}{suggest(statistic, STATISTICS)}; known are {', '.join(STATISTICS)}")
    if statistic == "borda":
        return list(map(int, np.argsort(np.round(p @ np.argsort(rankings, axis=1), DIGITS), kind="stable")))
    if rankings.shape[1] > MAX_MODELS:
        raise ValueError(f"Kemeny's consensus takes at most {MAX_MODELS} items; got {rankings.shape[1]}")
    return Subsets(_precedence(rankings, p).T).order()


def _precedence(rankings: Orders, p: Floats) -> Floats:
    """``found[a, b]``: the probability that a stands before b."""
    positions = np.argsort(rankings, axis=1)
    return np.asarray(np.tensordot(p, positions[:, :, None] < positions[:, None, :], axes=1))


def _distances(first: Orders, second: Orders) -> Floats:
    """Kendall distances [len(first), len(second)]."""
    pairs = np.triu_indices(first.shape[1], 1)
    signs = [np.sign(np.argsort(o, axis=1)[:, pairs[0]] - np.argsort(o, axis=1)[:, pairs[1]]) for o in (first, second)]
    return np.asarray((len(pairs[0]) - signs[0] @ signs[1].T) / 2)


def _contamination(mass: Floats, worse: Floats) -> float:
    """The least TV(p, q) over distributions q with ``worse @ q <= 0``; q is p plus what comes in minus what is taken out."""
    taken = np.flatnonzero(mass)
    found = linprog(
        np.concatenate([np.ones(len(mass)), np.zeros(len(taken))]),
        A_ub=np.concatenate([worse, -worse[:, taken]], axis=1),
        b_ub=-worse @ mass,
        A_eq=np.concatenate([np.ones(len(mass)), -np.ones(len(taken))])[None],
        b_eq=[0.0],
        bounds=[(0, None)] * len(mass) + [(0, most) for most in mass[taken]],
    )
    assert found.success, found.message  # all mass on the order itself is one way
    return float(found.fun)
