"""Rules of social choice: the properties they are known for, missing scores, and refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagg.report import voting
from fedagg.report.voting import (
    arithmetic_mean,
    baldwin,
    borda,
    borda_one_level,
    borda_two_level,
    condorcet,
    copeland,
    could_win,
    elect,
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

from .voting_reference import (
    HOLES,
    NAN,
    NO_HOLES,
    SCORES,
    SCORING,
    elections,
    name_of,
    order_of,
)

# Properties.


@pytest.mark.parametrize("rule", SCORING, ids=name_of)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_neither_names_nor_order_of_tasks_count(rule, data):
    table, w = data.draw(elections())
    models = data.draw(st.permutations(range(len(table))))
    tasks = data.draw(st.permutations(range(len(w))))
    assert rule(table[models], w).tolist() == pytest.approx(rule(table, w)[models].tolist(), rel=1e-12)
    assert rule(table[:, tasks], w[tasks]).tolist() == pytest.approx(rule(table, w).tolist(), rel=1e-12)
    assert elect(rule, table[:, tasks], w[tasks]) == elect(rule, table, w)
    assert elect(rule, table, 4 * w) == elect(rule, table, w)


@pytest.mark.parametrize("rule", [baldwin, threshold, condorcet])
@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_elections_ignore_names_and_order_of_tasks(rule, data):
    table, w = data.draw(elections())
    models = data.draw(st.permutations(range(len(table))))
    tasks = data.draw(st.permutations(range(len(w))))
    assert [models[i] for i in rule(table[models], w)] == sorted(rule(table, w), key=models.index)
    assert rule(table[:, tasks], w[tasks]) == rule(table, w)


@pytest.mark.parametrize("rule", SCORING, ids=name_of)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_winner_that_does_better_still_wins(rule, data):
    table, w = data.draw(elections())
    winner = data.draw(st.sampled_from(elect(rule, table, w)))
    better = table.copy()
    better[winner, data.draw(st.integers(0, len(w) - 1))] += data.draw(st.integers(1, 3))
    assert winner in elect(rule, better, w)


@pytest.mark.parametrize("rule", [*SCORING, borda], ids=name_of)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_equal_models_score_alike(rule, data):
    table, w = data.draw(elections())
    scores = rule(np.concatenate([table, table[:1]]), w)
    assert scores[-1] == scores[0]


@settings(deadline=None, derandomize=True)
@given(elections())
def test_who_wins_every_duel_wins_by_the_rules_that_heed_duels(election):
    table, w = election
    if found := condorcet(table, w):
        for rule in (copeland, minimax, lambda s, w: -kemeny_places(s, w)):
            assert elect(rule, table, w) == found
        assert order_of(kemeny(table, w))[0] == found[0]


def test_what_differs_by_rounding_is_tied():
    # A is better on tasks 0 and 1, B on task 2; 0.1 + 0.2 is not 0.3 in floating point.
    scores, weights = [[1, 1, 0], [0, 0, 1]], [0.1, 0.2, 0.3]
    for rule in (plurality, borda, copeland, minimax):
        assert elect(rule, scores, weights) == [0, 1], rule
    assert condorcet(scores, weights) == []
    assert baldwin(scores, weights) == threshold(scores, weights) == [0, 1]
    assert kemeny_places(scores, weights).tolist() == [1, 1]
    assert kemeny([[0, 0, 1], [1, 1, 0]], weights).tolist() == [1, 0]  # the smaller order
    # Borda within groups gives 0.1 + 0.2 and 0.3 to either: a tie in the second step too.
    scores = [[1, 1, 0, 0], [0, 0, 1, 0]]
    assert two_step(borda, scores, [[0, 1, 2], [3]], weights=[0.1, 0.2, 0.3, 1]).tolist() == [0, 0]
    assert elect(arithmetic_mean, [[0.1, 0.2], [0.3, 0.0]]) == [0, 1]


@pytest.mark.parametrize("rule", [condorcet, baldwin, threshold])
def test_rules_that_name_winners_are_not_asked_for_scores(rule):
    message = f"elect needs a rule that gives every model a score; {rule.__name__} names the winners itself"
    with pytest.raises(ValueError, match=message):
        elect(rule, SCORES)


@pytest.mark.parametrize("rule", SCORING[:-1], ids=name_of)
def test_many_tables_at_once(rule):
    tables = np.random.default_rng(0).integers(0, 6, (4, 3, 5, 7)).astype(float)
    weights = np.arange(7.0)
    found = rule(tables, weights)
    assert found.shape == (4, 3, 5)
    for at in np.ndindex(4, 3):
        assert found[at].tolist() == pytest.approx(rule(tables[at], weights).tolist(), rel=1e-12)


# Missing scores and refusals.


def test_duels_are_counted_where_both_were_measured():
    scores = np.array([[5, NAN, 1], [4, 9, 2], [NAN, 8, 3]])
    # 0 - 1: one task each. 0 - 2: lost on the only task. 1 - 2: one task each.
    assert copeland(scores).tolist() == [-1, 0, 1]
    assert minimax(scores).tolist() == [-1, 0, 0]
    assert minimax(scores, variant="margins").tolist() == [-1, 0, 0]
    assert condorcet(scores) == []
    assert condorcet(scores[:, [0, 1, 2, 2]]) == [2]
    assert kemeny_cost([2, 1, 0], scores) == 2  # task 1 contradicts 2 - 1, task 0 contradicts 1 - 0
    assert kemeny(scores).tolist() == [0, 2, 1]  # 1 2 0, 2 0 1 and 2 1 0 cost 2, all others 3


def test_means_put_in_the_median_of_the_task():
    scores = [[90, NAN, 60], [80, 100, 60], [70, 96, NAN], [99, 40, 90]]
    # Medians of the second and the third task: 96 and 60.
    assert arithmetic_mean(scores).tolist() == pytest.approx([82, 80, 226 / 3, 229 / 3])
    assert optimality_gap(scores).tolist() == pytest.approx([(-5 - 0 - 35) / 3, (-15 - 35) / 3, -20, (-55 - 5) / 3])


@pytest.mark.parametrize("rule", NO_HOLES, ids=name_of)
def test_who_needs_every_score_says_which_is_missing(rule):
    with pytest.raises(ValueError, match=f"{rule.__name__} needs every score, but model 1 has none on task 2"):
        rule([[1, 2, 3], [1, 2, NAN], [NAN, 2, 2]])


def test_in_two_steps_the_missing_score_is_named_by_its_task_in_the_whole_table():
    with pytest.raises(ValueError, match="borda needs every score, but model 1 has none on task 2"):
        two_step(borda, [[1, 2, 3], [1, 2, NAN]], [[0], [1, 2]])


@pytest.mark.parametrize("rule", [*NO_HOLES, *HOLES, condorcet, could_win], ids=name_of)
def test_what_no_rule_takes(rule):
    with pytest.raises(ValueError, match=rf"{rule.__name__} .*nobody has one on task 1"):
        rule([[1, NAN], [2, NAN]])
    for wrong in ([1, 2], np.empty((0, 3)), np.empty((3, 0))):
        with pytest.raises(ValueError, match=rf"{rule.__name__} needs scores \[models, tasks\]"):
            rule(wrong)
    if rule is not could_win:
        for weights in ([1, -1], [1, NAN], [1, float("inf")]):
            with pytest.raises(ValueError, match=f"{rule.__name__} needs finite weights >= 0"):
                rule([[1, 2], [3, 4]], weights)
        with pytest.raises(ValueError, match=r"weight for each of 2 tasks; got shape \(3,\)"):
            rule([[1, 2], [3, 4]], [1, 1, 1])


@pytest.mark.parametrize("rule", [baldwin, threshold, condorcet, kemeny, kemeny_places, kemeny_heuristic, could_win])
def test_one_table_at_a_time(rule):
    with pytest.raises(ValueError, match=f"{rule.__name__} needs one table"):
        rule(np.ones((2, 2, 2)))


def test_other_refusals():
    with pytest.raises(ValueError, match=r"no variant 'margin' \(did you mean margins\?\)"):
        minimax(SCORES, variant="margin")
    with pytest.raises(ValueError, match="copeland has no variant 'x'; it has difference, lower, lower_with_ties, upper"):
        copeland(SCORES, variant="x")
    with pytest.raises(ValueError, match="that of model 1 on task 0 is -2"):
        geometric_mean([[1, 2], [-2, 3]])
    for mean in (arithmetic_mean, geometric_mean, optimality_gap):
        with pytest.raises(ValueError, match="a weight above 0"):
            mean(SCORES, np.zeros(5))
    with pytest.raises(ValueError, match="below infinity"):
        arithmetic_mean([[1, float("inf")], [2, 3]])
    with pytest.raises(ValueError, match=r"at most max_models=16 of them; got 17\. kemeny_heuristic takes any number"):
        kemeny(np.ones((17, 2)))
    with pytest.raises(ValueError, match="max_models=3"):
        kemeny(SCORES, max_models=3)
    for order in ([0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 4]):
        with pytest.raises(ValueError, match="names each of 4 models once"):
            kemeny_cost(order, SCORES)
    for groups in ([[0, 1], [2, 3]], [[0, 1, 2], [2, 3, 4]], [[0, 1, 2, 3, 4], []], [[0, 1, 2, 3, 5]]):
        with pytest.raises(ValueError, match="each of 5 tasks stands once"):
            two_step(borda, SCORES, groups)
    with pytest.raises(ValueError, match="a weight for each of 5 tasks"):
        two_step(borda, SCORES, [[0, 1, 2, 3, 4]], weights=[1])
    for levels in (borda_one_level, borda_two_level):
        with pytest.raises(ValueError, match="model 1 has none on instance 2 of task 1"):
            levels([[[1], [2]], [[1, 2, 3], [1, 2, NAN]]])
        with pytest.raises(ValueError, match="all of the same models"):
            levels([[[1], [2]], [[1]]])
        with pytest.raises(ValueError, match="an array"):
            levels([])


def test_a_diverged_model_is_last_and_breaks_nothing():
    scores = [[1.0, -np.inf], [0.5, 0.6], [-np.inf, -np.inf]]
    assert arithmetic_mean(scores)[1] == 0.55
    assert elect(arithmetic_mean, scores) == [1]
    assert arithmetic_mean(scores, [1, 0]).tolist() == [1.0, 0.5, -np.inf]
    assert borda(scores).tolist() == [2, 3, 0]


def test_all_is_exported():
    for name in voting.__all__:
        assert callable(getattr(voting, name))
