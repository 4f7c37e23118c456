"""Certified elections written down again, slowly: the equations model by model, and true radii by trying everything."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations, combinations_with_replacement, permutations, product

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

Ballot = tuple[float, ...]  # the logits of one model
Winner = Callable[[Sequence[Ballot]], int]


def ballot(order: str) -> Ballot:
    """Logits of a model that prefers the classes in this order: "120" is best 1, then 2, then 0."""
    return tuple(float(len(order) - order.index(str(label))) for label in range(len(order)))


def vote(model: Ballot) -> int:
    return min(range(len(model)), key=lambda label: (-model[label], label))


def tally(models: Sequence[Ballot]) -> list[int]:
    votes = [vote(model) for model in models]
    return [votes.count(label) for label in range(len(models[0]))]


def plurality(models: Sequence[Ballot]) -> int:
    votes = tally(models)
    return votes.index(max(votes))


def finalists(models: Sequence[Ballot]) -> tuple[int, int]:
    votes = tally(models)
    first, second = sorted(range(len(votes)), key=lambda label: (-votes[label], label))[:2]
    return first, second


def run_off(models: Sequence[Ballot]) -> int:
    first, second = finalists(models)
    for_first = sum(model[first] > model[second] for model in models)
    for_second = len(models) - for_first
    if for_first == for_second:
        return min(first, second)
    return first if for_first > for_second else second


# Certificates, equation by equation


def dpa_radius(models: Sequence[Ballot]) -> int:
    votes, w = tally(models), plurality(models)
    return min(math.floor((votes[w] - votes[c] - (c < w)) / 2) for c in range(len(votes)) if c != w)


def fa_radius(models: Sequence[Ballot], spread: Sequence[Sequence[int]]) -> int:
    votes, w = tally(models), plurality(models)
    radii = []
    for c in range(len(votes)):
        if c != w:
            delta = [sum(1 + (vote(models[j]) == w) - (vote(models[j]) == c) for j in row) for row in spread]
            delta.sort(reverse=True)
            slack = votes[w] - votes[c] - (c < w)
            radii.append(max(r for r in range(len(delta) + 1) if sum(delta[:r]) <= slack))
    return min(radii)


def V(a: int, b: int) -> int:
    return max(math.ceil(a / 2), math.ceil(b / 2), math.ceil((a + b) / 3))


def half_up(x: int) -> int:
    return max(0, math.ceil(x / 2))


def roe_certificates(models: Sequence[Ballot]) -> tuple[float, float]:
    """cert1 and cert2 of DPA+ROE."""
    votes, classes = tally(models), range(len(models[0]))
    p = run_off(models)
    q = next(label for label in finalists(models) if label != p)

    def gap(c: int) -> int:
        return max(0, votes[p] - votes[c] + (c > p))

    def edge(c: int) -> int:
        return 2 * sum(model[p] > model[c] for model in models) - len(models) + (c > p)

    cert1 = min((V(gap(a), gap(b)) for a, b in combinations([c for c in classes if c != p], 2)), default=math.inf)
    cert2 = min(max(0 if c == q else half_up(votes[q] - votes[c] + (c > q)), half_up(edge(c))) for c in classes if c != p)
    return cert1, cert2


def V1(gap: int, delta: Sequence[int]) -> float:
    ordered = sorted(delta, reverse=True)
    return next((r for r in range(len(delta) + 1) if sum(ordered[:r]) >= gap), math.inf)


def fa_roe_certificates(models: Sequence[Ballot], spread: Sequence[Sequence[int]]) -> tuple[float, float]:
    """cert1 and cert2 of FA+ROE."""
    votes, classes = tally(models), range(len(models[0]))
    p = run_off(models)
    q = next(label for label in finalists(models) if label != p)
    first = [vote(model) for model in models]

    def gap(c: int) -> int:
        return votes[p] - votes[c] + (c > p)

    def deltas(gain: Callable[[int], int]) -> list[int]:
        return [sum(gain(j) for j in row) for row in spread]

    def alone(c: int) -> float:
        return V1(gap(c), deltas(lambda j: 1 + (first[j] == p) - (first[j] == c)))

    def both(a: int, b: int) -> float:
        gain = deltas(lambda j: 1 + 2 * (first[j] == p) - (first[j] == a) - (first[j] == b))
        return V1(gap(a) + gap(b), gain)

    def takes_place(c: int) -> float:
        return V1(votes[q] - votes[c] + (c > q), deltas(lambda j: 1 + (first[j] == q) - (first[j] == c)))

    def beats(c: int) -> float:
        edge = 2 * sum(model[p] > model[c] for model in models) - len(models) + (c > p)
        return V1(edge, deltas(lambda j: 2 * (models[j][p] > models[j][c])))

    rivals = [c for c in classes if c != p]
    cert1 = min((max(alone(a), alone(b), both(a, b)) for a, b in combinations(rivals, 2)), default=math.inf)
    cert2 = min(max(0 if c == q else takes_place(c), beats(c)) for c in rivals)
    return cert1, cert2


# True radii


def strict_ballots(classes: int) -> list[Ballot]:
    """Every order of the classes."""
    return [tuple(float(place) for place in order) for order in permutations(range(classes))]


def all_ballots(classes: int) -> list[Ballot]:
    """Every order of the classes, those with ties too: 13 of three classes."""
    places = product(map(float, range(classes)), repeat=classes)
    return [order for order in places if set(order) == set(range(len(set(order))))]


def electorates(ballots: Sequence[Ballot], k: int) -> list[tuple[Ballot, ...]]:
    """Every electorate of k models, up to their order."""
    return list(combinations_with_replacement(ballots, k))


def true_radii(voters: Sequence[Sequence[Ballot]], ballots: Sequence[Ballot], winner: Winner) -> npt.NDArray[np.int64]:
    """How many models may change in any way without another winner, for each of ALL electorates of a size.

    It is one less than the distance to the nearest electorate with another winner.
    """
    counts = np.array([[models.count(kind) for kind in ballots] for models in map(list, voters)], dtype=float)
    winners = np.array([winner(models) for models in voters])
    radii = np.empty(len(counts), dtype=np.int64)
    for start in range(0, len(counts), 1000):
        block = slice(start, start + 1000)
        changed = cdist(counts[block], counts, "cityblock") / 2
        changed[winners[block, None] == winners] = np.inf
        radii[block] = changed.min(axis=1) - 1
    return radii


class Poisoned:
    """Which winners a few models can bring about, whatever the others are: by trying every way in which they can vote.

    Args:
        ballots: what a model can be.
        k: models.
        winner: who wins.
    """

    def __init__(self, ballots: Sequence[Ballot], k: int, winner: Winner) -> None:
        self.base, self.kinds = k + 1, len(ballots)
        self.weights = self.base ** np.arange(self.kinds)
        self.reach = np.zeros(self.base**self.kinds, dtype=np.uint8)  # by what the honest models are: a bit a class
        for models in combinations_with_replacement(range(self.kinds), k):
            self.reach[self.weights[list(models)].sum()] = 1 << winner([ballots[kind] for kind in models])
        for honest in range(k - 1, -1, -1):
            codes = self._codes(honest)
            for weight in self.weights:
                self.reach[codes] |= self.reach[codes + weight]

    def _codes(self, models: int) -> npt.NDArray[np.int64]:
        chosen = list(combinations_with_replacement(range(self.kinds), models))
        return self.weights[np.array(chosen, dtype=np.int64).reshape(len(chosen), models)].sum(axis=1)

    def true_radii(self, kinds: npt.NDArray[np.int64], spread: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many buckets may be poisoned without another winner, for electorates [E, k] of indices into ``ballots``."""
        everybody = self.weights[kinds]
        winner = self.reach[everybody.sum(axis=1)]
        radii = np.full(len(kinds), -1)
        lost = np.zeros(len(kinds), dtype=bool)
        for r in range(1, len(spread) + 1):
            for buckets in combinations(range(len(spread)), r):
                honest = np.setdiff1d(np.arange(kinds.shape[1]), spread[list(buckets)])
                lost |= self.reach[everybody[:, honest].sum(axis=1)] != winner
            radii[lost & (radii < 0)] = r - 1
            if lost.all():
                return radii
        raise AssertionError("poisoning everything changes the winner")
