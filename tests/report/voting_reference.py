"""Tables to vote on, and rules of social choice written down again from their definitions."""

import itertools
from fractions import Fraction
from functools import partial

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from fedagg.report.voting import (
    arithmetic_mean,
    baldwin,
    borda,
    copeland,
    dowdall,
    geometric_mean,
    kemeny,
    kemeny_heuristic,
    kemeny_places,
    minimax,
    optimality_gap,
    plurality,
    threshold,
)

NAN = float("nan")
SCORES = np.array([(90, 70, 80, 60, 50), (85, 70, 85, 60, 55), (90, 65, 75, 70, 45), (80, 60, 85, 65, 55)])
LOSSES = np.array([(0.3, 5, 10, 0.02, 1, 0.4), (0.1, 4, 13, 0.01, 2.2, 0.3), (0, 3, 15, 0.03, 2, 0.2)])
CYCLE = np.array([(3, 1, 2), (2, 3, 1), (1, 2, 3)])  # the first beats the second, that the third, and that the first

RANKED = [plurality, borda, dowdall]
HOLES = [copeland, minimax, arithmetic_mean, optimality_gap, kemeny, kemeny_places, kemeny_heuristic]
NO_HOLES = [*RANKED, geometric_mean, baldwin, threshold]
SCORING = [
    *RANKED,
    *(partial(copeland, variant=v) for v in ("difference", "lower", "lower_with_ties", "upper")),
    *(partial(minimax, variant=v) for v in ("winning_votes", "margins", "pairwise_opposition")),
    arithmetic_mean,
    geometric_mean,
    partial(optimality_gap, gamma=3.0),
    lambda scores, weights=None: -kemeny_places(scores, weights),
]


def name_of(rule):
    return getattr(rule, "__name__", None) or "-".join([rule.func.__name__, *map(str, rule.keywords.values())])


@st.composite
def elections(draw, most=5, low=0, high=4):
    """A table with many ties, and weights of which some may be 0."""
    models, tasks = draw(st.integers(1, most)), draw(st.integers(1, 5))
    cells = st.lists(st.integers(low, high), min_size=tasks, max_size=tasks)
    table = draw(st.lists(cells, min_size=models, max_size=models))
    weights = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=tasks, max_size=tasks))
    assume(any(weights))
    return np.array(table, float), np.array(weights)


# Slow references, from the definitions: r is the rank with ties sharing the best, R with ties sharing the worst.


def r(table, i, t):
    return 1 + sum(table[b][t] > table[i][t] for b in range(len(table)))


def R(table, i, t):
    return sum(table[b][t] >= table[i][t] for b in range(len(table)))


def W(table, w, a, b):
    return sum(w[t] for t in range(len(w)) if table[a][t] > table[b][t])


def by_definition(table, w):
    """Scores of all rules, in exact fractions where there are divisions."""
    n, tasks = len(table), range(len(w))
    w = [Fraction(x) for x in w]
    duels = {(a, b): W(table, w, a, b) for a in range(n) for b in range(n)}
    rivals = [[b for b in range(n) if b != i] for i in range(n)]
    won = [sum(duels[i, b] > duels[b, i] for b in rivals[i]) for i in range(n)]
    lost = [sum(duels[i, b] < duels[b, i] for b in rivals[i]) for i in range(n)]
    tied = [len(rivals[i]) - won[i] - lost[i] for i in range(n)]
    values = [[Fraction(x) for x in row] for row in table]
    return {
        "plurality": [sum(w[t] for t in tasks if R(table, i, t) <= 1) for i in range(n)],
        "borda": [sum(w[t] * (n - R(table, i, t)) for t in tasks) for i in range(n)],
        "dowdall": [sum(w[t] / r(table, i, t) for t in tasks) for i in range(n)],
        "copeland-difference": [a - b for a, b in zip(won, lost, strict=True)],
        "copeland-lower": won,
        "copeland-lower_with_ties": [a + Fraction(b, 2) for a, b in zip(won, tied, strict=True)],
        "copeland-upper": [-b for b in lost],
        "minimax-winning_votes": [
            -max([duels[b, i] if duels[b, i] > duels[i, b] else 0 for b in rivals[i]], default=0) for i in range(n)
        ],
        "minimax-margins": [-max([duels[b, i] - duels[i, b] for b in rivals[i]], default=0) for i in range(n)],
        "minimax-pairwise_opposition": [-max([duels[b, i] for b in rivals[i]], default=0) for i in range(n)],
        "arithmetic_mean": [sum(w[t] * values[i][t] for t in tasks) / sum(w) for i in range(n)],
        "optimality_gap-3.0": [sum(w[t] * (min(values[i][t], 3) - 3) for t in tasks) / sum(w) for i in range(n)],
    }


def baldwin_by_definition(table, w):
    left = list(range(len(table)))
    while True:
        rows = [table[i] for i in left]
        points = [sum(w[t] * (len(rows) - R(rows, i, t)) for t in range(len(w))) for i in range(len(rows))]
        if len(set(points)) == 1:
            return left
        left = [i for i, p in zip(left, points, strict=True) if p > min(points)]


def threshold_by_definition(table, w):
    left = list(range(len(table)))
    for q in range(len(table), 1, -1):
        points = {i: sum(w[t] for t in range(len(w)) if R(table, i, t) != q) for i in left}
        left = [i for i in left if points[i] == max(points.values())]
    return left


def optimal_orders(table, w):
    def cost(order):
        return sum(W(table, w, b, a) for a, b in itertools.combinations(order, 2))

    costs = {order: cost(order) for order in itertools.permutations(range(len(table)))}
    return [order for order in costs if costs[order] == min(costs.values())]


def order_of(scores):
    return np.argsort(-scores, kind="stable").tolist()
