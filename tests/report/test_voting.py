"""Rules of social choice against values by hand and against slow references."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.stats import gmean

from fedagg.report.voting import (
    arithmetic_mean,
    baldwin,
    borda,
    borda_one_level,
    borda_two_level,
    condorcet,
    copeland,
    could_win,
    dowdall,
    geometric_mean,
    kemeny,
    kemeny_cost,
    kemeny_heuristic,
    kemeny_places,
    minimax,
    optimality_gap,
    plurality,
    threshold,
    two_step,
)
from fedagg.report.voting.kemeny import descend

from .voting_reference import (
    CYCLE,
    LOSSES,
    NAN,
    SCORES,
    SCORING,
    W,
    baldwin_by_definition,
    by_definition,
    elections,
    name_of,
    optimal_orders,
    order_of,
    threshold_by_definition,
)

# Values by hand.


def test_values_by_hand():
    assert plurality(SCORES).tolist() == [0, 0, 1, 0]
    assert borda(SCORES).tolist() == [6, 7, 6, 6]
    assert dowdall(SCORES).tolist() == pytest.approx([3, 11 / 3, 17 / 6, 3])
    assert copeland(SCORES).tolist() == [-1, 3, -1, -1]
    assert copeland(SCORES, variant="lower_with_ties").tolist() == [1, 3, 1, 1]
    assert minimax(SCORES).tolist() == [-3, 0, -3, -3]
    assert minimax(SCORES, variant="margins").tolist() == [-1, 1, -2, -1]
    assert condorcet(SCORES) == threshold(SCORES) == baldwin(SCORES) == [1]


def test_kemeny_by_hand():
    scores = -LOSSES
    costs = {order: kemeny_cost(order, scores) for order in itertools.permutations(range(3))}
    assert costs[2, 1, 0] == 7
    assert costs[0, 1, 2] == 11
    assert sorted(costs.values()) == [7, 9, 9, 9, 9, 11]
    assert kemeny(scores).tolist() == [0, 1, 2]
    assert order_of(arithmetic_mean(scores)) == [0, 1, 2]
    assert order_of(borda(scores)) == [2, 1, 0]


def test_a_cycle_has_no_condorcet_winner_and_three_of_kemeny():
    assert condorcet(CYCLE) == []
    assert copeland(CYCLE).tolist() == [0, 0, 0]
    assert minimax(CYCLE).tolist() == [-2, -2, -2]
    assert kemeny(CYCLE).tolist() == [2, 1, 0]  # 0 1 2, 1 2 0 and 2 0 1 cost 4 each; the smallest is taken
    assert kemeny_places(CYCLE).tolist() == [1, 1, 1]
    assert could_win(CYCLE) == [0, 1, 2]


def test_means():
    scores = [[1.0, 100.0], [16.0, 25.0], [0.0, 90.0]]
    assert arithmetic_mean(scores).tolist() == [50.5, 20.5, 45]
    assert arithmetic_mean(scores, [3, 1]).tolist() == [25.75, 18.25, 22.5]
    assert geometric_mean(scores).tolist() == pytest.approx([10, 20, 0])
    assert geometric_mean(scores, [3, 1])[:2].tolist() == pytest.approx(gmean([[1, 100], [16, 25]], axis=1, weights=[3, 1]))
    assert geometric_mean(scores, [0, 1]).tolist() == pytest.approx([100, 25, 90])
    assert optimality_gap(scores).tolist() == [-47, -74.5, -50]  # (-94 + 0) / 2, (-79 - 70) / 2, (-95 - 5) / 2
    assert optimality_gap(scores, gamma=20).tolist() == [-9.5, -2, -10]


def test_borda_over_instances():
    small = [[3.0], [2.0], [1.0]]
    large = [[1.0, 1.0, 5.0], [2.0, 2.0, 5.0], [3.0, 3.0, 5.0]]
    # Ranks from 0, ties average: 2 1 0 in the one instance of the first; 0 1 2, 0 1 2 and 1 1 1 in the second.
    assert borda_one_level([small, large]).tolist() == [3, 4, 5]
    # Sums in the second are 1, 3, 5, which rank 0, 1, 2.
    assert borda_two_level([small, large]).tolist() == [2, 2, 2]


def test_two_steps_by_hand():
    scores = np.array([[3.0, 3, 3, 1, 1], [2, 2, 2, 3, 2], [1, 1, 1, 2, 3]])
    groups = [[0, 1, 2], [4, 3]]
    # Borda: in the first group 6, 3, 0; in the second 0, 3, 3. Over groups: 2 + 0, 1 + 1, 0 + 1.
    assert two_step(borda, scores, groups).tolist() == [2, 2, 1]
    assert two_step(borda, scores, groups, group_weights=[1, 3]).tolist() == [2, 4, 3]
    # In the second group task 3 gives 0, 2, 1 three times and task 4 gives 0, 1, 2 once: 0, 7, 5, and 0, 2, 1 over groups.
    assert two_step(borda, scores, groups, weights=[1, 1, 1, 3, 1]).tolist() == [2, 3, 1]
    assert borda(scores).tolist() == [6, 6, 3]


def test_two_steps_leave_out_a_model_that_has_no_score_in_a_group():
    scores = np.array([[3.0, NAN], [2, 1], [1, 2]])
    # Mean over groups: the first has 3 and, in place of nothing, the median of 1 and 2.
    assert two_step(arithmetic_mean, scores, [[0], [1]]).tolist() == [2.25, 1.5, 1.5]
    # Second step: duels 0 - 1 and 0 - 2 are decided by the first group alone, 1 - 2 is tied.
    assert two_step(copeland, scores, [[0], [1]]).tolist() == [2, -1, -1]


# Against the references.


@settings(deadline=None, derandomize=True)
@given(elections())
def test_scores_equal_their_definitions(election):
    table, w = election
    expected = by_definition(table.tolist(), w.tolist())
    for rule in SCORING:
        if name_of(rule) in expected:
            assert rule(table, w).tolist() == pytest.approx([float(x) for x in expected[name_of(rule)]]), name_of(rule)
    assert {name_of(rule) for rule in SCORING} - set(expected) == {"geometric_mean", "<lambda>"}


@settings(deadline=None, derandomize=True)
@given(elections())
def test_elections_equal_their_definitions(election):
    table, w = election
    rows, w = table.tolist(), w.tolist()
    assert baldwin(table, w) == baldwin_by_definition(rows, w)
    assert threshold(table, w) == threshold_by_definition(rows, w)
    n = len(rows)
    beats_all = [a for a in range(n) if all(a == b or W(rows, w, a, b) > W(rows, w, b, a) for b in range(n))]
    assert condorcet(table, w) == beats_all


@settings(deadline=None, derandomize=True)
@given(elections())
def test_kemeny_equals_brute_force(election):
    table, w = election
    optimal = optimal_orders(table.tolist(), w.tolist())
    assert order_of(kemeny(table, w)) == list(optimal[0])
    best = [1 + min(order.index(i) for order in optimal) for i in range(len(table))]
    assert kemeny_places(table, w).tolist() == best


@pytest.mark.parametrize("seed", range(3))
def test_kemeny_equals_brute_force_with_seven(seed):
    table = np.random.default_rng(seed).integers(0, 5, (7, 6)).astype(float)
    table[np.random.default_rng(seed).random(table.shape) < 0.15] = NAN
    optimal = optimal_orders(table.tolist(), [1] * 6)
    assert order_of(kemeny(table)) == list(optimal[0])
    assert kemeny_places(table).tolist() == [1 + min(order.index(i) for order in optimal) for i in range(7)]


@pytest.mark.parametrize("models", [1, 2, 9, 12])
def test_the_search_finds_what_is_optimal_in_most_tables(models):
    tables = [np.random.default_rng([models, seed]).random((models, 7)) for seed in range(10)]
    found = [kemeny_cost(order_of(kemeny_heuristic(table)), table) for table in tables]
    exact = [kemeny_cost(order_of(kemeny(table)), table) for table in tables]
    assert all(a >= b for a, b in zip(found, exact, strict=True))
    assert sum(a == b for a, b in zip(found, exact, strict=True)) >= 9


def assert_no_insertion_helps(order, table):
    cost = kemeny_cost(order, table)
    for item in order:
        rest = [other for other in order if other != item]
        assert all(kemeny_cost([*rest[:at], item, *rest[at:]], table) >= cost for at in range(len(order)))


def test_the_search_is_of_one_end_and_no_insertion_helps_there():
    table = np.random.default_rng(5).random((25, 6))
    scores = kemeny_heuristic(table)
    assert sorted(scores) == list(range(25))
    assert_no_insertion_helps(order_of(scores), table)
    assert (kemeny_heuristic(table) == scores).all()


def test_the_search_moves_an_item_past_those_that_it_loses_to():
    # 0 before 1 saves 10, 0 before 2 and 3 costs 3 each, and 1 must stay before these two.
    costs = np.array([[0, 0, 3, 3], [10, 0, 0, 0], [0, 20, 0, 0], [0, 20, 1, 0]], float)
    assert descend(np.array([1, 2, 3, 0]), costs) == [0, 1, 2, 3]
    assert descend(np.array([0, 2, 3, 1]), costs) == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(10))
def test_from_any_start_the_search_ends_where_no_insertion_helps(seed):
    draw = np.random.default_rng(seed)
    table = draw.random((7, 5))
    duels = np.array([[W(table.tolist(), [1] * 5, b, a) for b in range(7)] for a in range(7)], float)
    order = descend(draw.permutation(7), duels)
    assert sorted(order) == list(range(7))
    assert_no_insertion_helps(order, table)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(elections(most=4))
def test_who_could_win(election):
    table, w = election
    able = could_win(table)
    duels = [[W(table.tolist(), w, a, b) for b in range(len(table))] for a in range(len(table))]
    for i in range(len(table)):
        if all(duels[i][b] >= duels[b][i] for b in range(len(table))):
            assert i in able  # these weights show it
        if any((table[b] > table[i]).all() for b in range(len(table))):
            assert i not in able


def test_who_could_win_is_not_who_no_single_rival_beats_everywhere():
    """Each of the others beats the first on one task alone; yet whatever the weights, one of them is above 0."""
    scores = [[0.5, 0.5, 0.5], [0.6, 0.5, 0.5], [0.5, 0.6, 0.5], [0.5, 0.5, 0.6]]
    assert could_win(scores) == [1, 2, 3]
