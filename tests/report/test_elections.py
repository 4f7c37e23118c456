"""The same results by many rules: places, winners, what changes them, and what is said where runs are missing."""

import csv
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from fedagg.report import report
from fedagg.report.elections import (
    NO_LIMITS,
    agreement,
    agreement_csv,
    agreement_sheet,
    elections_csv,
    elections_sheet,
    find_election,
    winners_csv,
    winners_sheet,
)
from fedagg.report.fragility import resampled, tasks_to_change, upset_by
from fedagg.report.grouping import group_runs
from fedagg.report.measures import Metric, Protocol
from fedagg.report.rules import rules_for
from fedagg.report.summary import summarize
from fedagg.report.voting import kemeny_cost
from fedagg.results import find_runs

RULES = {rule.name: rule for rule in rules_for(Metric.parse("accuracy"), 3)}
CYCLE = {"a": (0.9, 0.5, 0.6), "b": (0.8, 0.9, 0.3), "c": (0.7, 0.6, 0.9)}  # a beats b, b beats c, c beats a
CLEAR = {"a": (0.9, 0.9, 0.2, 0.9), "b": (0.8, 0.8, 0.8, 0.8), "c": (0.1, 0.7, 0.1, 0.7)}


def write(root, make_run, finals, seeds=2, spread=0.01, **more):
    """A run per strategy, attack and seed; the seeds spread around the value that is given."""
    for strategy, values in finals.items():
        for attack, value in enumerate(values):
            if value is None:
                continue
            for seed in range(seeds):
                final = value + spread * (seed - (seeds - 1) / 2)
                make_run(root / f"{strategy}{attack}{seed}", strategy, f"attack{attack}", seed, [0.1, final], **more)


def election_of(root, metric="accuracy"):
    groups, _ = group_runs(find_runs(root))
    return find_election(summarize(groups, Metric.parse(metric), Protocol.parse("final"))[0])


def outcomes_of(root, **more):
    return {outcome.rule.name: outcome for outcome in election_of(root, **more).outcomes}


def texts(sheet):
    return [[entry.text for entry in row] for row in sheet.rows]


def test_places_side_by_side(tmp_path, make_run):
    write(tmp_path, make_run, CLEAR)
    sheet = elections_sheet(election_of(tmp_path), "elections")
    scoring = ["mean", "geometric mean", "optimality gap", "Borda", "Dowdall", "plurality", "Copeland", "minimax", "Kemeny"]
    assert list(sheet.header) == ["strategy", "mean over tasks", *scoring]
    # Means 0.725, 0.8 and 0.4; on tasks a is first thrice and second once, b second thrice and first once.
    assert texts(sheet) == [
        ["b", "80.0", "1", "1", "1", "2", "2", "2", "2", "2", "2"],
        ["a", "72.5", "2", "2", "2", "1", "1", "1", "1", "1", "1"],
        ["c", "40.0", "3", "3", "3", "3", "3", "3", "3", "3", "3"],
    ]
    assert [entry.mark for entry in sheet.rows[0]] == ["", "", "best", "best", "best", *[""] * 6]
    assert sheet.caption[0].startswith("4 tasks (the 4 attacks) rank the strategies by their means over seeds. Protocol final")
    assert all(f"{name}: " in sheet.caption[2] for name in scoring)


def test_winners_in_words(tmp_path, make_run):
    write(tmp_path, make_run, CLEAR, spread=0)
    sheet = winners_sheet(election_of(tmp_path), "x")
    rows = {row[0]: row[1:] for row in texts(sheet)}
    assert rows["mean"] == ["b", "1 of 4", "b 100 %", "the same"]
    assert rows["plurality"] == ["a", "1 of 4", "a 100 %", "the same"]
    assert rows["Condorcet"][0] == rows["Baldwin"][0] == "a"
    # Last are c, c, c, c: a and b never; last but one: a once, b thrice.
    assert rows["threshold"][0] == "a"
    assert sheet.verdict[0] == (
        "The rules disagree on the winner: a by Borda, Dowdall, plurality, Copeland, minimax, Kemeny, Condorcet, Baldwin,"
        " threshold; b by mean, geometric mean, optimality gap."
    )
    assert sheet.verdict[1].startswith("a wins every duel")
    assert sheet.verdict[2] == (
        "However the tasks are weighted, some other strategy is better than c on more of them than it is worse."
    )


def test_a_cycle_has_no_winner_of_all_duels_and_ties_are_ties(tmp_path, make_run):
    write(tmp_path, make_run, CYCLE, spread=0)
    election = election_of(tmp_path)
    places = {outcome.rule.name: outcome.places for outcome in election.rankings}
    for name in ("Borda", "Dowdall", "plurality", "Copeland", "minimax", "Kemeny"):
        assert places[name] == [1, 1, 1], name
    assert [row[5] for row in texts(elections_sheet(election, "x"))] == ["1="] * 3
    sheet = winners_sheet(election, "x")
    rows = {row[0]: row[1:] for row in texts(sheet)}
    assert rows["Borda"][:2] == ["a, b, c", "–"]
    assert rows["Condorcet"] == ["nobody", "–", "nobody", "changes without a, b, c"]  # of two, one wins
    assert any(words.endswith("worse, so who is best depends on the rule.") for words in sheet.verdict)
    assert not any("However" in words for words in sheet.verdict)
    assert np.isnan(agreement(election.rankings)[3][4])
    assert texts(agreement_sheet(election, "x"))[3][5] == "–"


def test_of_several_kemeny_orders_the_best_places_are_ranked(tmp_path, make_run):
    """a before b on two tasks, b before a on two; both before c: the orders a b c and b a c, and third is third."""
    write(tmp_path, make_run, {"a": (0.9, 0.9, 0.5, 0.5), "b": (0.5, 0.5, 0.9, 0.9), "c": (0.1,) * 4}, spread=0)
    election = election_of(tmp_path)
    at = elections_sheet(election, "x").header.index("Kemeny")
    assert [(row[0], row[at]) for row in texts(elections_sheet(election, "x"))] == [("a", "1="), ("b", "1="), ("c", "3")]


def test_where_rules_agree_it_is_said(tmp_path, make_run):
    write(tmp_path, make_run, {"a": (0.9, 0.8), "b": (0.5, 0.4), "c": (0.3, 0.5)}, spread=0)
    assert winners_sheet(election_of(tmp_path), "x").verdict[0] == "Every rule that names a winner names a."


def test_where_rules_agree_on_a_tie_nothing_depends_on_the_rule(tmp_path, make_run):
    write(tmp_path, make_run, {"a": (0.9, 0.5), "b": (0.5, 0.9)}, spread=0)
    said = winners_sheet(election_of(tmp_path), "x").verdict
    assert said[0] == "Every rule that names a winner names a, b (tied)."
    assert said[1].startswith("No strategy wins every duel")
    assert said[1].endswith("on more tasks than it is worse.")


def test_agreement_is_kendalls_tau_of_the_places(tmp_path, make_run):
    write(tmp_path, make_run, CLEAR)
    election = election_of(tmp_path)
    found = agreement(election.rankings)
    assert found[0][1] == pytest.approx(1)
    assert found[0][3] == pytest.approx(1 / 3)  # one of three pairs the other way round
    assert found == np.array(found).T.tolist()
    row = texts(agreement_sheet(election, "x"))[0]
    assert row == ["mean", "1", "1.00", "1.00", *["0.33"] * 6]
    assert ("Borda", "mean", repr(round(1 / 3, 12))) in agreement_csv(election)
    assert len(agreement_csv(election)) == 1 + 9 * 8 // 2
    assert found[0][3] == pytest.approx(kendalltau([2, 1, 3], [1, 2, 3]).statistic)


def test_of_a_loss_the_lowest_is_best(tmp_path, make_run):
    write(tmp_path, make_run, CLEAR)  # the loss is 2.3 - 2 accuracy
    election = election_of(tmp_path, metric="loss")
    names = [outcome.rule.name for outcome in election.outcomes]
    assert "geometric mean" not in names
    assert "optimality gap" not in names
    sheet = elections_sheet(election, "x")
    assert texts(sheet)[0] == ["b", "0.700", "1", "2", "2", "2", "2", "2", "2"]
    assert "of test loss" in sheet.caption[1]


def test_what_diverged_is_last(tmp_path, make_run):
    write(tmp_path, make_run, {"a": (math.nan, 0.5), "b": (0.2, 0.4)})
    found = outcomes_of(tmp_path)
    assert found["mean"].places == [2, 1]
    assert found["Borda"].places == [1, 1]
    sheet = elections_sheet(election_of(tmp_path), "x")
    assert texts(sheet)[1][:3] == ["a", "–", "2"]
    # The geometric mean has no use for it, and says so.
    assert "geometric mean" not in sheet.header
    assert sheet.verdict == ["Not by geometric mean, which needs values >= 0: a has no finite value on attack0."]
    rows = {row[0]: row[1:] for row in texts(winners_sheet(election_of(tmp_path), "x"))}
    assert rows["geometric mean"] == ["needs values >= 0", "–", "–", "–"]
    refusals = {line[0]: line[-1] for line in winners_csv(election_of(tmp_path))}
    assert refusals["geometric mean"] == "needs values >= 0, but a has no finite value on attack0"
    assert refusals["mean"] == ""


def test_missing_runs(tmp_path, make_run):
    write(tmp_path, make_run, {"a": (0.9, None, 0.3), "b": (0.8, 0.5, 0.4), "c": (0.7, 0.6, None)})
    election = election_of(tmp_path)
    sheet = elections_sheet(election, "x")
    assert list(sheet.header)[2:] == ["mean", "optimality gap", "Copeland", "minimax", "Kemeny"]
    assert sheet.verdict[0] == (
        "Not by geometric mean, Borda, Dowdall, plurality, Baldwin, threshold, which need every strategy on every task;"
        " missing: a on attack1, c on attack2."
    )
    # Duels: a - b one each, a - c won by a, b - c one each.
    found = {outcome.rule.name: outcome for outcome in election.outcomes}
    assert found["Copeland"].scores.tolist() == [1, 0, -1]
    assert found["Copeland"].shares is None
    rows = {row[0]: row[1:] for row in texts(winners_sheet(election, "x"))}
    assert rows["Borda"] == ["needs every run", "–", "–", "–"]
    assert "Seeds were not resampled" in winners_sheet(election, "x").caption[2]
    assert [line[-1] for line in winners_csv(election) if line[0] == "Borda"] == ["needs every run, but a has none on attack1"]


def test_tasks_are_the_attacks_of_all_settings_and_shared_runs_count_once(tmp_path, make_run):
    for fraction in (0.1, 0.2):
        config = {"attack": {"method": "alie", "fraction": fraction}}
        for strategy, value in (("a", 0.9), ("b", 0.5)):
            make_run(tmp_path / f"{strategy}{fraction}", strategy, "alie", 0, [0.1, value], config=config)
    for strategy in "ab":
        make_run(tmp_path / f"{strategy}none", strategy, "none", 0, [0.1, 0.9], config={"attack": {"fraction": 0.0}})
    election = election_of(tmp_path)
    assert len(election.tables) == 2
    assert election.tasks == ["attack.fraction=0.1: none", "attack.fraction=0.1: alie", "attack.fraction=0.2: alie"]
    assert election.scores.tolist() == [[0.9, 0.9, 0.9], [0.9, 0.5, 0.5]]
    words = elections_sheet(election, "x").caption[0]
    assert words.startswith("3 tasks (attack alie and the case without attack, in 2 settings) rank")


def test_nothing_to_choose(tmp_path, make_run):
    write(tmp_path / "one strategy", make_run, {"a": (0.9, 0.5)})
    write(tmp_path / "one task", make_run, {"a": (0.9,), "b": (0.8,)})
    assert election_of(tmp_path / "one strategy") is None
    assert election_of(tmp_path / "one task") is None


def test_many_strategies(tmp_path, make_run):
    draw = np.random.default_rng(0)
    write(tmp_path, make_run, {f"s{i:02}": draw.random(3) for i in range(17)}, seeds=1)
    election = election_of(tmp_path)
    found = next(outcome for outcome in election.outcomes if outcome.rule.name == "Kemeny (search)")
    assert sorted(found.places) == list(range(1, 18))
    assert (found.shares, found.change) == (None, None)
    rows = {row[0]: row[2:] for row in texts(winners_sheet(election, "x"))}
    assert rows["Kemeny (search)"] == ["–", "–", "–"]
    assert "a search that does not prove it the best" in elections_sheet(election, "x").caption[2]
    assert "Kemeny (search), slow with so many strategies, was asked once only." in winners_sheet(election, "x").caption


def test_a_tie_of_many_is_counted(tmp_path, make_run):
    write(tmp_path, make_run, {f"s{i}": (0.5, 0.6) for i in range(5)}, seeds=1)
    rows = {row[0]: row[1:] for row in texts(winners_sheet(election_of(tmp_path), "x"))}
    assert rows["Borda"][0] == "s0, s1, s2 and 2 others"


@pytest.mark.usefixtures("no_pictures")
def test_files_and_page(tmp_path, make_run):
    write(tmp_path, make_run, CLEAR)
    done = report(tmp_path, quiet=True)
    rows = list(csv.DictReader((done.folder / "elections.csv").read_text().splitlines()))
    assert len(rows) == 12 * 3
    found = {(row["rule"], row["strategy"]): row for row in rows}
    assert (found["Borda", "a"]["score"], found["Borda", "a"]["place"], found["Borda", "a"]["wins"]) == ("7.0", "1", "True")
    assert float(found["mean", "c"]["score"]) == pytest.approx(0.4)
    assert (found["Condorcet", "b"]["score"], found["Condorcet", "b"]["wins"]) == ("", "False")
    winners = {row["rule"]: row for row in csv.DictReader((done.folder / "elections_winners.csv").read_text().splitlines())}
    assert (winners["mean"]["winners"], winners["mean"]["tasks_to_change"], winners["mean"]["proved"]) == ("b", "1", "True")
    html = (done.folder / "report.html").read_text()
    assert html.index('<section id="leaderboard">') < html.index('<section id="by-other-rules">')
    for kind in ("elections", "elections_winners", "elections_agreement"):
        assert f"{kind}.csv, {kind}.tex" in html
        source = (done.folder / f"{kind}.tex").read_text().split("\n", 1)[1]
        assert source.isascii()
        assert source.count("{") == source.count("}")


# What changes a winner, against all there is to try.


@st.composite
def tables(draw, tasks=(1, 3)):
    count = draw(st.integers(*tasks))
    return np.array([[draw(st.integers(0, 4)) / 4 for _ in range(count)] for _ in range(3)])


@st.composite
def diverged(draw):
    """About a sixth of the cells without a finite value."""
    table = draw(tables())
    table[
        np.array(draw(st.lists(st.integers(0, 5), min_size=table.size, max_size=table.size))).reshape(table.shape) == 0
    ] = -np.inf
    return table


def least_to_change(rule, table, columns):
    """Every choice of tasks, and every result there may be on them."""
    now = set(np.flatnonzero(rule.elects(table)))
    for count in range(1, table.shape[1] + 1):
        for tasks in itertools.combinations(range(table.shape[1]), count):
            for choice in itertools.product(columns, repeat=count):
                other = table.copy()
                other[:, tasks] = np.array(choice).T
                if set(np.flatnonzero(rule.elects(other))) - now:
                    return count
    return None


ORDERS = [(a / 2, b / 2, c / 2) for a, b, c in itertools.product(range(3), repeat=3)]  # all weak orders, with 0 and 1


@pytest.mark.parametrize("name", ["Borda", "Dowdall", "plurality", "mean", "optimality gap", "Copeland", "minimax"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(table=st.one_of(tables(), diverged()))
def test_tasks_to_change(name, table):
    rule = RULES[name]
    now = rule.elects(table)
    found = tasks_to_change(rule, table, (0.0, 1.0))
    if now.all():
        assert found is None
        return
    count, proved = found
    least = least_to_change(rule, table, ORDERS)
    assert count >= least
    if proved:
        assert count == least
    assert proved >= (now.sum() == 1 and rule.additive)


def test_tasks_to_change_by_hand():
    # a is ahead of b by 5 in Borda, and a task that is turned brings 1 + 2 or -1 + 2: two of the five.
    table = np.array([[0.9] * 5, [0.5] * 5, [0.1] * 5])
    assert tasks_to_change(RULES["Borda"], table, (0, 1)) == (2, True)
    # The mean: 0.9 - 0.5 five times; a turned task brings 0.4 + 1.
    assert tasks_to_change(RULES["mean"], table, (0, 1)) == (2, True)
    # Without limits, one task decides.
    assert tasks_to_change(RULES["mean"], table, NO_LIMITS) == (1, True)
    # Duels of five tasks turn with three.
    assert tasks_to_change(RULES["Copeland"], table, (0, 1)) == (3, False)
    assert tasks_to_change(RULES["Kemeny"], table, (0, 1)) == (3, False)
    assert tasks_to_change(RULES["Condorcet"], table, (0, 1)) == (3, False)
    # A task on which b diverged comes before one that it loses by more, and without it b cannot win.
    table = np.array([[0.1, 0.9, 0.9], [-np.inf, 0.5, 0.5]])
    assert tasks_to_change(RULES["mean"], table, (0, 1)) == (1, True)
    assert tasks_to_change(RULES["optimality gap"], table, (0, 1)) == (1, True)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(tables(tasks=(4, 4)), min_size=1, max_size=3))
def test_who_wins_by_kemeny_is_first_in_an_order_of_least_cost(many):
    found = RULES["Kemeny"].elects(np.array(many))
    for table, winners in zip(many, found, strict=True):
        costs = {order: kemeny_cost(order, table) for order in itertools.permutations(range(3))}
        firsts = {order[0] for order, cost in costs.items() if cost == min(costs.values())}
        assert set(np.flatnonzero(winners)) == firsts


@pytest.mark.parametrize("name", ["Borda", "mean", "Kemeny", "Condorcet", "threshold"])
def test_resamples_are_all_sequences_of_seeds(name):
    seeds = np.random.default_rng(1).integers(0, 5, (3, 3, 4)).astype(float)
    every = [seeds[list(draw)].mean(axis=0) for draw in itertools.product(range(3), repeat=3)]
    expected = np.mean([RULES[name].elects(table) for table in every], axis=0)
    assert resampled(RULES[name], seeds).tolist() == pytest.approx(expected.tolist())


def test_of_many_seeds_a_thousand_resamples_are_drawn():
    draw = np.random.default_rng(2)
    seeds = draw.normal(0, 1, (8, 2, 1)) + np.array([0.2, 0.0])[:, None]
    found = resampled(RULES["mean"], seeds)
    assert found.sum() == pytest.approx(1)
    lead = (seeds[:, 0] - seeds[:, 1]).ravel()
    expected = (lead[draw.integers(8, size=(100_000, 8))].mean(axis=1) > 0).mean()
    assert found[0] == pytest.approx(expected, abs=0.08)  # five standard deviations of a share of 1000
    assert (found == resampled(RULES["mean"], seeds)).all()


@pytest.mark.parametrize("name", list(RULES))
@settings(max_examples=20, deadline=None, derandomize=True)
@given(table=tables(tasks=(2, 4)))
def test_upsets(name, table):
    rule = RULES[name]
    now = set(np.flatnonzero(rule.elects(table)).tolist())
    expected = []
    for loser in sorted({0, 1, 2} - now):
        rest = [i for i in range(3) if i != loser]
        if {rest[i] for i in np.flatnonzero(rule.elects(table[rest]))} != now:
            expected.append(loser)
    assert upset_by(rule, table) == expected
    if name in ("mean", "geometric mean", "optimality gap"):
        assert expected == []


def test_a_loser_that_decides():
    # Three tasks say a b c, two say b c a: only with c between them does b have more points than a.
    table = np.array([[2.0, 2, 2, 0, 0], [1, 1, 1, 2, 2], [0, 0, 0, 1, 1]])
    assert RULES["Borda"].elects(table).tolist() == [False, True, False]  # 6, 7, 2
    assert upset_by(RULES["Borda"], table) == [2]  # 3 against 2 for a
    assert upset_by(RULES["Copeland"], table) == []


def test_a_task_that_only_the_loser_has_goes_with_it():
    nan = float("nan")
    assert upset_by(RULES["Copeland"], np.array([[2.0, nan], [1.0, nan], [0.0, 1.0]])) == []


def test_lines_of_a_rule(tmp_path, make_run):
    write(tmp_path, make_run, CLEAR)
    lines = elections_csv(election_of(tmp_path))
    assert lines[0] == ("rule", "strategy", "metric", "protocol", "tasks", "score", "place", "wins", "resamples_won")
    assert lines[1][:5] == ("mean", "a", "accuracy", "final", 4)
