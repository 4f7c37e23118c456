"""The same results by many rules: who wins by which, how far the rules agree, and how easily a winner changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import kendalltau, rankdata

from fedagg.report.captions import MISSING, cases, judged
from fedagg.report.fragility import ALL_DRAWS, DRAWS, resampled, tasks_to_change, upset_by
from fedagg.report.measures import Floats, Metric
from fedagg.report.rules import MEAN, Rule, rules_for
from fedagg.report.sheets import BEST, Entry, Line, Sheet
from fedagg.report.summary import Cell, Table
from fedagg.report.voting import could_win
from fedagg.report.voting.ballots import MissingScore, NegativeScore

FEW = 3  # names in a cell
NO_LIMITS = (-1e12, 1e12)  # of a metric that has none


@dataclass(frozen=True)
class Outcome:
    """What one rule says.

    Args:
        rule: the rule.
        needs: what it needs in order to say something, and does not have; empty if it says something.
        refusal: where that is missing.
        scores: [strategies], higher is better; None for a rule that names winners alone.
        winners: [strategies]; nobody may have won.
        shares: [strategies], of resamples of the seeds in which each wins; None if seeds were not resampled.
        change: on how many tasks results must be others for another winner, and whether fewer are proved not to do.
        upset: the losers without which the winners would be others.
    """

    rule: Rule
    needs: str = ""
    refusal: str = ""
    scores: Floats | None = None
    winners: tuple[int, ...] = ()
    shares: Floats | None = None
    change: tuple[int, bool] | None = None
    upset: tuple[int, ...] = ()

    @property
    def places(self) -> list[int] | None:
        """From 1; ties share the best."""
        return None if self.scores is None else [int(place) for place in rankdata(-self.scores, method="min")]


@dataclass(frozen=True)
class Election:
    """Strategies and the tasks that rank them: every attack of every setting, ``none`` included.

    Args:
        tables: the settings.
        strategies: the rows of ``scores``.
        tasks: the columns; a task whose runs are those of another one is left out.
        scores: means over seeds, higher is better; NaN was not measured, -inf has no finite value.
        seeds: [seeds, strategies, tasks], of the seeds with which everything was run; empty if there are none.
    """

    tables: Sequence[Table]
    strategies: list[str]
    tasks: list[str]
    scores: Floats
    seeds: Floats

    @property
    def metric(self) -> Metric:
        """What was measured."""
        return self.tables[0].metric

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """Of every rule."""
        return [self._ask(rule) for rule in rules_for(self.metric, len(self.strategies))]

    @property
    def rankings(self) -> list[Outcome]:
        """Of the rules that rank all strategies."""
        return [outcome for outcome in self.outcomes if outcome.scores is not None]

    def names(self, members: Sequence[int]) -> list[str]:
        """Strategies by their numbers."""
        return [self.strategies[member] for member in members]

    def _ask(self, rule: Rule) -> Outcome:
        try:
            winners = np.flatnonzero(rule.elects(self.scores)).tolist()
        except MissingScore as hole:
            return Outcome(rule, "every run", f"{self.strategies[hole.model]} has none on {self.tasks[hole.task]}")
        except NegativeScore as low:
            found = self.scores[low.model, low.task]
            value = self.metric.show(found) if np.isfinite(found) else "no finite value"
            return Outcome(rule, "values >= 0", f"{self.strategies[low.model]} has {value} on {self.tasks[low.task]}")
        scores = None if rule.scores is None else rule.scores(self.scores)
        if not rule.quick:
            return Outcome(rule, scores=scores, winners=tuple(winners))
        shares = resampled(rule, self.seeds) if len(self.seeds) > 1 else None
        limits = (0.0, 1.0) if self.metric.percent else NO_LIMITS
        change = tasks_to_change(rule, self.scores, limits)
        return Outcome(rule, "", "", scores, tuple(winners), shares, change, tuple(upset_by(rule, self.scores)))


def find_election(tables: Sequence[Table]) -> Election | None:
    """The election that these tables hold; None for a single strategy or a single task, which leave nothing to decide."""
    strategies = sorted({strategy for table in tables for strategy in table.strategies})
    columns: dict[tuple[object, ...], tuple[str, list[Cell | None]]] = {}
    for table in tables:
        for attack in table.attacks:
            cells = [table.cells.get((strategy, attack)) for strategy in strategies]
            runs = tuple(tuple(run.path for run in cell.runs) if cell else None for cell in cells)
            columns.setdefault(runs, (f"{table.title}: {attack}" if table.title else attack, cells))
    if len(strategies) < 2 or len(columns) < 2:
        return None
    sign = -1.0 if tables[0].metric.lower_is_better else 1.0
    grid = [cells for _, cells in columns.values()]
    scores = np.array([[_known(sign * cell.estimate.mean) if cell else np.nan for cell in cells] for cells in grid]).T
    values = [[dict(zip(cell.seeds, cell.values, strict=True)) if cell else {} for cell in cells] for cells in grid]
    shared = set.intersection(*(set(found) for column in values for found in column))
    seeds = [[[_known(sign * found[seed]) for found in column] for column in values] for seed in sorted(shared, key=str)]
    names = [name for name, _ in columns.values()]
    return Election(tables, strategies, names, scores, np.array(seeds).transpose(0, 2, 1) if seeds else np.empty((0, 0, 0)))


def elections_sheet(election: Election, name: str) -> Sheet:
    """The places of all strategies by the rules that rank them; the mean comes first, and orders the rows."""
    found = election.rankings
    places = [outcome.places or [] for outcome in found]
    means = next((outcome.scores for outcome in found if outcome.rule.name == MEAN), None)
    sign = -1.0 if election.metric.lower_is_better else 1.0
    order = range(len(election.strategies)) if means is None else np.argsort(-means, kind="stable").tolist()
    rows = []
    for row in order:
        shared = [f"{column[row]}{'=' if column.count(column[row]) > 1 else ''}" for column in places]
        marked = [Entry(words, BEST if column[row] == 1 else "") for words, column in zip(shared, places, strict=True)]
        mean = MISSING if means is None or np.isinf(means[row]) else election.metric.show(sign * float(means[row]) + 0.0)
        rows.append([Entry(election.strategies[row]), Entry(mean), *marked])
    caption = [
        _tasks(election),
        f"Mean over tasks: of {election.metric.words}. Then the places by each rule; = is a shared one, and bold the first.",
        "; ".join(f"{outcome.rule.name}: {outcome.rule.meaning}" for outcome in found) + ".",
    ]
    header = ["strategy", "mean over tasks", *(outcome.rule.name for outcome in found)]
    return Sheet(name, "Places by rule", "", caption, header, rows, _refusals(election))


def winners_sheet(election: Election, name: str) -> Sheet:
    """Who wins by each rule, and how easily that changes."""
    rows = [[Entry(outcome.rule.name), *map(Entry, _fragile(election, outcome))] for outcome in election.outcomes]
    caption = [
        "; ".join(f"{o.rule.name}: {o.rule.meaning}" for o in election.outcomes if o.rule.scores is None) + ".",
        "Tasks to change: on how many tasks at least the results would have to be others, whatever they may be, for a strategy"
        " to win that does not win now; at most: a search found no fewer.",
        _resamples(election),
        *(f"{o.rule.name}, slow with so many strategies, was asked once only." for o in election.outcomes if not o.rule.quick),
        "Without a loser: whether the winners would be others if one of the strategies that lose had not been run, and which.",
    ]
    header = ["rule", "winner", "tasks to change", "with other seeds", "without a loser"]
    return Sheet(name, "Winners, and how easily they change", "", caption, header, rows, _verdict(election))


def agreement_sheet(election: Election, name: str) -> Sheet:
    """Kendall's tau between the rankings of each two rules."""
    found = election.rankings
    rows = []
    for number, (outcome, line) in enumerate(zip(found, agreement(found), strict=True)):
        shown = ["1" if number == column else _tau(value) for column, value in enumerate(line)]
        rows.append([Entry(outcome.rule.name), *map(Entry, shown)])
    caption = [
        "Kendall's tau-b between the places by two rules: 1 for the same ranking, 0 for no relation, −1 for the reverse;"
        f" {MISSING} where a rule places all alike."
    ]
    return Sheet(name, "How far the rules agree", "", caption, ["rule", *(outcome.rule.name for outcome in found)], rows)


def agreement(outcomes: Sequence[Outcome]) -> list[list[float]]:
    """Kendall's tau-b between the places by each two rules; NaN where one places all alike."""
    places = [outcome.places for outcome in outcomes]
    return [[float(kendalltau(one, other).statistic) for other in places] for one in places]


def elections_csv(election: Election) -> list[Line]:
    """A line per rule and strategy: score (higher is better), place, and share of resamples won."""
    lines: list[Line] = [("rule", "strategy", "metric", "protocol", "tasks", "score", "place", "wins", "resamples_won")]
    what = (str(election.metric), str(election.tables[0].protocol), len(election.tasks))
    for outcome in election.outcomes:
        places = outcome.places
        for row, strategy in enumerate(election.strategies):
            score = ("", "") if outcome.scores is None or places is None else (repr(float(outcome.scores[row])), places[row])
            wins = "" if outcome.needs else row in outcome.winners
            share = "" if outcome.shares is None else repr(round(float(outcome.shares[row]), 12))
            lines.append((outcome.rule.name, strategy, *what, *score, wins, share))
    return lines


def winners_csv(election: Election) -> list[Line]:
    """A line per rule: winners, what changes them, and why it says nothing if it does not."""
    lines: list[Line] = [("rule", "winners", "tasks_to_change", "proved", "tasks", "upset_by", "refusal")]
    for outcome in election.outcomes:
        winners, upset = ("; ".join(election.names(members)) for members in (outcome.winners, outcome.upset))
        refusal = f"needs {outcome.needs}, but {outcome.refusal}" if outcome.needs else ""
        lines.append((outcome.rule.name, winners, *(outcome.change or ("", "")), len(election.tasks), upset, refusal))
    return lines


def agreement_csv(election: Election) -> list[Line]:
    """A line per pair of rules."""
    found = election.rankings
    lines: list[Line] = [("rule", "other", "tau")]
    for i, line in enumerate(agreement(found)):
        taus = ["" if np.isnan(tau) else repr(round(tau, 12)) for tau in line]
        lines += [(found[i].rule.name, found[j].rule.name, taus[j]) for j in range(i)]
    return lines


def _known(value: float) -> float:
    """What has no finite value is worse than all that has."""
    return float(value) if np.isfinite(value) else -np.inf


def _tasks(election: Election) -> str:
    what = cases(list(dict.fromkeys(attack for table in election.tables for attack in table.attacks)))
    where = f", in {len(election.tables)} settings" if len(election.tables) > 1 else ""
    how = " ".join(dict.fromkeys(judged(table) for table in election.tables))
    return f"{len(election.tasks)} tasks ({what}{where}) rank the strategies by their means over seeds. {how}"


def _refusals(election: Election) -> list[str]:
    refused = [outcome for outcome in election.outcomes if outcome.needs]
    if not refused:
        return []
    holes = np.argwhere(np.isnan(election.scores))
    names = ", ".join(outcome.rule.name for outcome in refused)
    if not len(holes):
        return [f"Not by {outcome.rule.name}, which needs {outcome.needs}: {outcome.refusal}." for outcome in refused]
    cells = [f"{election.strategies[row]} on {election.tasks[task]}" for row, task in holes[:3]]
    more = f" and {len(holes) - 3} more" if len(holes) > 3 else ""
    kept = (
        "The others count a duel on the tasks that both have run; the mean takes the median of the task for what is missing."
    )
    return [f"Not by {names}, which need every strategy on every task; missing: {', '.join(cells)}{more}.", kept]


def _fragile(election: Election, outcome: Outcome) -> list[str]:
    if outcome.needs:
        return [f"needs {outcome.needs}", MISSING, MISSING, MISSING]
    winners = _list(election.names(outcome.winners)) or "nobody"
    change = MISSING
    if outcome.change:
        count, proved = outcome.change
        change = f"{'' if proved else 'at most '}{count} of {len(election.tasks)}"
    others = MISSING
    if outcome.shares is not None:
        ranked = sorted(zip(election.strategies, outcome.shares, strict=True), key=lambda pair: -pair[1])
        others = _list([f"{strategy} {100 * share:.0f} %" for strategy, share in ranked if share >= 0.005]) or "nobody"
    upset = f"changes without {_list(election.names(outcome.upset))}" if outcome.upset else "the same"
    return [winners, change, others, upset if outcome.rule.quick else MISSING]


def _resamples(election: Election) -> str:
    n = len(election.seeds)
    if n < 2:
        return "Seeds were not resampled: that takes two or more with which every strategy was run on every task."
    how = "in all resamples" if n <= ALL_DRAWS else f"in {DRAWS} resamples"
    few = " With so few seeds, the shares are rough." if n <= ALL_DRAWS else ""
    return (
        f"With other seeds: how often each strategy wins {how} of the {n} seeds, drawn with replacement; a shared win counts"
        f" for each, so shares may add up to more than 100 %.{few}"
    )


def _verdict(election: Election) -> list[str]:
    """What the rules say together."""
    asked = [outcome for outcome in election.outcomes if not outcome.needs]
    by_winner: dict[tuple[int, ...], list[str]] = {}
    for outcome in asked:
        if outcome.winners:
            by_winner.setdefault(outcome.winners, []).append(outcome.rule.name)
    lines = []
    if len(by_winner) == 1:
        lines.append(f"Every rule that names a winner names {_winners(election, next(iter(by_winner)))}.")
    else:
        ordered = sorted(by_winner.items(), key=lambda item: -len(item[1]))
        said = [f"{_winners(election, who)} by {', '.join(rules)}" for who, rules in ordered]
        lines.append(f"The rules disagree on the winner: {'; '.join(said)}.")
    duels = next(outcome for outcome in asked if outcome.rule.name == "Condorcet")
    if duels.winners:
        winner = election.names(duels.winners)[0]
        lines.append(f"{winner} wins every duel: against each other strategy it is better on more tasks than it is worse.")
    else:
        lines.append(
            "No strategy wins every duel (there is no Condorcet winner): each fails to be better than some other on more tasks"
            f" than it is worse{', so who is best depends on the rule' if len(by_winner) > 1 else ''}."
        )
    able = could_win(election.scores)
    unable = [strategy for row, strategy in enumerate(election.strategies) if row not in able]
    if unable:
        lines.append(
            f"However the tasks are weighted, some other strategy is better than {', '.join(unable)} on more of them than it"
            " is worse."
        )
    return lines


def _winners(election: Election, members: Sequence[int]) -> str:
    return _list(election.names(members)) + (" (tied)" if len(members) > 1 else "")


def _list(names: Sequence[str]) -> str:
    """A few of the names, and how many others there are."""
    more = len(names) - FEW
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:FEW])} and {more} others"


def _tau(value: float) -> str:
    return MISSING if np.isnan(value) else f"{'−' if value < -0.005 else ''}{abs(value):.2f}"
