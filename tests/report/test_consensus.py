"""Robustness of a consensus, against values by hand, all distributions on a grid, and other linear programmes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from fedagg.report.consensus import breakdown, breakdown_lower_bound, bucket_distance, merge_buckets

ORDERS, P = [(0, 1, 2), (0, 2, 1), (1, 2, 0)], [0.6, 0.2, 0.2]


def kendall(first, second):
    return sum((first.index(a) < first.index(b)) != (second.index(a) < second.index(b)) for a, b in pairs(first))


def pairs(items):
    return list(itertools.combinations(sorted(items), 2))


def costs_of(orders, p):
    every = list(itertools.permutations(range(len(orders[0]))))
    return {tau: sum(w * kendall(tuple(o), tau) for o, w in zip(orders, p, strict=True)) for tau in every}


def consensus_of(orders, p, statistic):
    """By definition; ties to the order that is the smallest as a list."""
    if statistic == "kemeny":
        costs = costs_of(orders, p)
        return min(costs, key=lambda tau: (round(costs[tau], 9), tau))
    items = range(len(orders[0]))
    mean = [round(sum(w * list(o).index(i) for o, w in zip(orders, p, strict=True)), 9) for i in items]
    return tuple(sorted(items, key=lambda i: (mean[i], i)))


@st.composite
def profiles(draw, least=2, most=4):
    m = draw(st.integers(least, most))
    orders = draw(st.lists(st.permutations(range(m)), min_size=1, max_size=5))
    parts = draw(st.lists(st.integers(1, 10), min_size=len(orders), max_size=len(orders)))
    return [tuple(order) for order in orders], [part / sum(parts) for part in parts]


def test_values_by_hand():
    assert [breakdown(ORDERS, P, delta) for delta in (1, 2, 3)] == pytest.approx([0.3, 0.3, 0.3])
    assert [breakdown(ORDERS, P, delta, "borda") for delta in (1, 2, 3)] == pytest.approx([0.15, 0.3, 0.3])
    assert breakdown_lower_bound(ORDERS, P) == pytest.approx(0.3)


def test_on_a_grid_of_all_distributions():
    """Multiples of 1/20 on the six orders of three items, 53130 distributions: those of least contamination are among them."""
    every = list(itertools.permutations(range(3)))
    cuts = np.array(list(itertools.combinations(range(25), 5)))
    q = np.diff(cuts, axis=1, prepend=-1, append=25) - 1
    p = np.array([20 * P[ORDERS.index(order)] if order in ORDERS else 0 for order in every])
    contamination = np.abs(q - p).sum(axis=1) / 40
    distances = np.array([[kendall(a, b) for b in every] for a in every])
    positions = np.array([[order.index(item) for item in range(3)] for order in every])
    costs = q @ distances
    for delta in (1, 2, 3):
        far = distances[0] >= delta
        moved = (costs[:, far] == costs.min(axis=1, keepdims=True)).any(axis=1)
        assert breakdown(ORDERS, P, delta) == pytest.approx(contamination[moved].min())
        sums = (q @ positions)[:, np.array(every)]  # [distribution, order, place]
        agrees = (np.diff(sums, axis=2) >= 0).all(axis=2)
        moved = agrees[:, far].any(axis=1)
        assert breakdown(ORDERS, P, delta, "borda") == pytest.approx(contamination[moved].min())


def contamination_by_other_means(orders, p, delta, statistic):
    """q itself is the variable, and t >= |q - p|; a dense programme for each order that is far enough."""
    every = list(itertools.permutations(range(len(orders[0]))))
    n = len(every)
    mass = np.array([sum(w for o, w in zip(orders, p, strict=True) if tuple(o) == order) for order in every])
    centre, best = consensus_of(orders, p, statistic), np.inf
    for tau in (order for order in every if kendall(centre, order) >= delta):
        if statistic == "kemeny":
            rows = [[kendall(o, tau) - kendall(o, rho) for o in every] for rho in every]
        else:
            rows = [[o.index(a) - o.index(b) for o in every] for a, b in itertools.pairwise(tau)]
        upper = np.block([[np.eye(n), -np.eye(n)], [-np.eye(n), -np.eye(n)], [np.array(rows), np.zeros((len(rows), n))]])
        limits = np.concatenate([mass, -mass, np.zeros(len(rows))])
        total = np.concatenate([np.ones(n), np.zeros(n)])[None]
        found = linprog(np.repeat([0, 0.5], n), A_ub=upper, b_ub=limits, A_eq=total, b_eq=[1])
        best = min(best, found.fun)
    return best


@pytest.mark.parametrize("statistic", ["kemeny", "borda"])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(profile=profiles(), share=st.floats(0, 1))
def test_equals_another_programme(statistic, profile, share):
    orders, p = profile
    m = len(orders[0])
    delta = 1 + round(share * (m * (m - 1) / 2 - 1))
    assert breakdown(orders, p, delta, statistic) == pytest.approx(
        contamination_by_other_means(orders, p, delta, statistic), abs=1e-7
    )


@pytest.mark.parametrize(
    ("orders", "parts", "delta"),
    [
        ([(1, 0, 2), (0, 2, 1), (0, 1, 2)], [3, 8, 15], 2),
        ([(0, 1, 2, 3), (1, 0, 2, 3), (2, 1, 3, 0), (1, 3, 2, 0)], [14, 9, 6, 4], 2),
        ([(1, 2, 3, 0), (2, 3, 1, 0), (3, 0, 2, 1), (0, 1, 2, 3), (0, 3, 2, 1)], [10, 1, 1, 6, 5], 4),
    ],
)
def test_orders_that_seem_the_nearest_are_not_always(orders, parts, delta):
    p = np.array(parts) / sum(parts)
    assert breakdown(orders, p, delta) == pytest.approx(contamination_by_other_means(orders, p, delta, "kemeny"), abs=1e-7)


def test_five_items():
    orders = [(0, 1, 2, 3, 4), (1, 0, 2, 4, 3), (4, 3, 2, 1, 0)]
    found = [breakdown(orders, [0.5, 0.3, 0.2], delta, statistic) for statistic in ("kemeny", "borda") for delta in (1, 10)]
    # Kemeny: 0.7 say 0 before 1 against 0.3 for 1 before 0 and 0.2 the reverse of everything: 0.5 each, a tie already.
    assert found[0] == pytest.approx(0)
    # The reverse: all ten pairs must be turned; 3 and 2 are led by 0.8 to 0.2, so 0.3 at least must change sides.
    assert found[1] == pytest.approx(0.3)
    assert found[2] == pytest.approx(0)  # mean positions of 0 and 1 are 0.3 + 0.8 and 0.5 + 0.6
    assert 0 < found[3] <= found[1] + 1e-9


@settings(max_examples=60, deadline=None, derandomize=True)
@given(profiles(most=5))
def test_the_lower_bound_is_that_of_all_orders(profile):
    orders, p = profile
    costs, centre = costs_of(orders, p), consensus_of(orders, p, "kemeny")
    mu = min((costs[tau] - costs[centre]) / kendall(centre, tau) for tau in costs if tau != centre)
    assert breakdown_lower_bound(orders, p) == pytest.approx(max(mu, 0) / 2, abs=1e-9)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(profiles(most=4))
def test_the_breakdown_grows_with_the_distance_from_its_lower_bound(profile):
    orders, p = profile
    m = len(orders[0])
    found = [breakdown(orders, p, delta) for delta in range(1, m * (m - 1) // 2 + 1)]
    assert all(b >= a - 1e-7 for a, b in itertools.pairwise(found))
    bound = breakdown_lower_bound(orders, p)
    assert found[0] >= bound - 1e-7
    centre = consensus_of(orders, p, "kemeny")
    at_centre = sum(w for order, w in zip(orders, p, strict=True) if order == centre)
    if bound <= at_centre:
        assert found[0] == pytest.approx(bound, abs=1e-7)


def test_buckets_by_hand():
    # P(0 before 1) = P(0 before 2) = 1, P(1 before 2) = 0.6: leads 0.5 and 0.1.
    orders, p = [(0, 1, 2), (0, 2, 1)], [0.6, 0.4]
    assert merge_buckets(orders, p, 0.1) == [[0], [1], [2]]
    assert merge_buckets(orders, p, 0.11) == [[0], [1, 2]]
    assert merge_buckets(orders, p, 0.5) == [[0], [1, 2]]
    assert merge_buckets(orders, p, 0.51) == [[0, 1, 2]]


def test_of_equal_leads_the_first_is_merged():
    # 3 1 and 2 0 are each ahead by 0.6 to 0.4; all else is certain. Merging both at once is not what is asked.
    orders, p = [(3, 1, 2, 0), (1, 3, 0, 2)], [0.6, 0.4]
    assert merge_buckets(orders, p, 0.05) == [[3], [1], [2], [0]]
    assert merge_buckets(orders, p, 0.2) == [[1, 3], [0, 2]]
    # P(0 before 1) = P(1 before 2) = P(0 before 2) = 0.8: [0, 1] comes first, and leads 2 by 0.3 on average.
    assert merge_buckets(ORDERS, P, 0.3) == [[0], [1], [2]]
    assert merge_buckets(ORDERS, P, 0.31) == [[0, 1, 2]]


def test_buckets_start_from_the_consensus_that_is_asked_for():
    # Kemeny: 0.52 say 0 1 2. Borda: mean positions of 0, 1, 2 are 0.96, 0.52 and 1.52.
    orders, p = [(0, 1, 2), (1, 2, 0)], [0.52, 0.48]
    assert merge_buckets(orders, p, 0) == [[0], [1], [2]]
    assert merge_buckets(orders, p, -1, "borda") == [[1], [0], [2]]
    assert merge_buckets(orders, p, 0, "borda") == [[0, 1], [2]]  # 1 leads 0 by 0.48 - 0.5


@st.composite
def buckets(draw, items):
    places = draw(st.lists(st.integers(0, 3), min_size=items, max_size=items))
    return [[i for i in range(items) if places[i] == place] for place in sorted(set(places))]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 5).flatmap(lambda items: st.tuples(buckets(items), buckets(items))))
def test_the_distance_of_buckets_is_hausdorffs(both):
    first, second = ([sum(p, ()) for p in itertools.product(*map(itertools.permutations, b))] for b in both)

    def from_to(some, others):
        return max(min(kendall(a, b) for b in others) for a in some)

    assert bucket_distance(*both) == max(from_to(first, second), from_to(second, first))


def test_refusals():
    with pytest.raises(ValueError, match="at most 5 items; got 6"):
        breakdown([range(6)], [1], 1)
    with pytest.raises(ValueError, match="differ by at most 3 pairs; got delta=4"):
        breakdown(ORDERS, P, 4)
    with pytest.raises(ValueError, match=r"unknown statistic 'kemny' \(did you mean kemeny\?\)"):
        breakdown(ORDERS, P, 1, "kemny")
    with pytest.raises(ValueError, match=r"order 1 names not each of 3 items once: \[0, 1, 1\]"):
        breakdown([[0, 1, 2], [0, 1, 1]], [0.5, 0.5], 1)
    for p in ([0.5, 0.4, 0.2], [1.2, -0.1, -0.1], [float("nan")] * 3):
        with pytest.raises(ValueError, match="probabilities >= 0 that sum to 1"):
            breakdown_lower_bound(ORDERS, p)
    with pytest.raises(ValueError, match="a probability for each of 3 orders"):
        merge_buckets(ORDERS, [1], 0)
    with pytest.raises(ValueError, match="2 to 16 items; got 1"):
        breakdown_lower_bound([[0]], [1])
    with pytest.raises(ValueError, match="at most 16 items; got 17"):
        merge_buckets([range(17)], [1], 0)
    with pytest.raises(ValueError, match=r"orders \[k, m\]"):
        breakdown([], [], 1)
    for wrong in ([[0, 1]], [[0], [1], [1]], [[0], [3]]):
        with pytest.raises(ValueError, match="the same items in both, each once"):
            bucket_distance(wrong, [[0], [1], [2]])
