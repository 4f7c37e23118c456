"""The rules that a report ranks strategies by, in words and as functions of any number of tables at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedagg.report import voting
from fedagg.report.measures import Floats, Metric
from fedagg.report.voting.kemeny import MAX_MODELS

MEAN = "mean"
GOOD_ENOUGH = 0.95  # of the optimality gap
QUICK = 14  # strategies up to which Kemeny's order is found in milliseconds

Winners = NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """A rule of a report.

    Args:
        name: as tables print it.
        meaning: what counts, in words for a reader who knows no social choice.
        scores: [..., strategies, tasks] -> [..., strategies], higher is better; None for a rule that names winners alone.
        elects: [..., strategies, tasks] -> [..., strategies], who wins.
        additive: whether scores are sums over tasks of what each task gives.
        quick: whether it can be asked some thousand times.
    """

    name: str
    meaning: str
    scores: Callable[[Floats], Floats] | None
    elects: Callable[[Floats], Winners]
    additive: bool = False
    quick: bool = True


def rules_for(metric: Metric, strategies: int) -> list[Rule]:
    """The rules that have a meaning for this metric and number of strategies."""
    found = [_scoring(MEAN, "the average score", voting.arithmetic_mean, additive=True)]
    if metric.percent and not metric.lower_is_better:
        gap = partial(voting.optimality_gap, gamma=GOOD_ENOUGH)
        enough = f"{100 * GOOD_ENOUGH:.0f} %"
        found += [
            _scoring("geometric mean", "an average that one score near 0 pulls down to 0", voting.geometric_mean),
            _scoring("optimality gap", f"the average, with all above {enough} counted as {enough}", gap, additive=True),
        ]
    found += [
        _scoring("Borda", "on each task, a point for every strategy beaten", voting.borda, additive=True),
        _scoring("Dowdall", "1 point for a first place, 1/2 for a second, 1/3 for a third", voting.dowdall, additive=True),
        _scoring("plurality", "a point for every task on which the strategy is best alone", voting.plurality, additive=True),
        _scoring("Copeland", "duels won minus duels lost; who is better on more tasks wins the duel", voting.copeland),
        _scoring("minimax", "how badly the strategy loses its worst duel", voting.minimax),
    ]
    if strategies <= MAX_MODELS:
        meaning, quick = "the order that contradicts the tasks on the fewest pairs", strategies <= QUICK
        found.append(Rule("Kemeny", meaning, _each(_kemeny), _first_by_kemeny, quick=quick))
    else:
        meaning = "an order that contradicts the tasks on few pairs, by a search that does not prove it the best"
        found.append(_scoring("Kemeny (search)", meaning, _each(voting.kemeny_heuristic), quick=False))
    return [
        *found,
        _naming("Condorcet", "who wins every duel", voting.condorcet),
        _naming("Baldwin", "the last by Borda drops out, and so again among the rest", voting.baldwin),
        _naming("threshold", "who is last on the fewest tasks; of these, last but one; and so on", voting.threshold),
    ]


def _scoring(name: str, meaning: str, scores: Callable[..., Floats], additive: bool = False, quick: bool = True) -> Rule:
    def elects(tables: Floats) -> Winners:
        found = scores(tables)
        return np.asarray(found == found.max(axis=-1, keepdims=True))

    return Rule(name, meaning, scores, elects, additive, quick)


def _naming(name: str, meaning: str, winners: Callable[[Floats], list[int]]) -> Rule:
    def elects(table: Floats) -> Floats:
        found = np.zeros(len(table))
        found[winners(table)] = 1
        return found

    return Rule(name, meaning, None, lambda tables: _each(elects)(tables) > 0)


def _each(rule: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """A rule for one table as a rule for many."""

    def every(tables: Floats) -> Floats:
        flat = tables.reshape(-1, *tables.shape[-2:])
        return np.stack([rule(table) for table in flat]).reshape(tables.shape[:-1])

    return every


def _kemeny(table: Floats) -> Floats:
    return len(table) - voting.kemeny_places(table).astype(np.float64)


def _first_by_kemeny(tables: Floats) -> Winners:
    """Who may stand first; who wins every duel does so alone, which spares looking for the order."""
    first = voting.copeland(tables, variant="lower") == tables.shape[-2] - 1
    for at in np.argwhere(~first.any(axis=-1)):
        first[tuple(at)] = voting.kemeny_places(tables[tuple(at)]) == 1
    return np.asarray(first)
