"""Elections that name winners, as ascending lists of indices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from fedagg.report.measures import Floats
from fedagg.report.voting.ballots import ranks, read, settled, wins


def elect(rule: Callable[..., Any], scores: ArrayLike, weights: ArrayLike | None = None) -> list[int]:
    """All models that have the highest score by ``rule``.

    Raises:
        ValueError: a rule that names winners itself.

    Example:
        >>> from fedagg.report.voting import plurality
        >>> elect(plurality, [[3, 1], [2, 2]])
        [0, 1]
    """
    found = rule(scores, weights)
    if not isinstance(found, np.ndarray):
        name = getattr(rule, "__name__", rule)
        raise ValueError(
            f"elect needs a rule that gives every model a score; {name} names the winners itself, so call it alone"
        )
    return _at_top(found)


def condorcet(scores: ArrayLike, weights: ArrayLike | None = None) -> list[int]:
    """The model that beats every other one on the greater weight of tasks, alone in a list; there may be none.

    Scores may have holes: a task that lacks a score of either counts for neither.
    """
    table, w = _one_table("condorcet", scores, weights, holes=True)
    found = wins(table, w)
    beats = found > found.T
    np.fill_diagonal(beats, True)
    return np.flatnonzero(beats.all(axis=1)).tolist()


def baldwin(scores: ArrayLike, weights: ArrayLike | None = None) -> list[int]:
    """Drop all models of least Borda score, rank the rest anew, and so on until all that are left score alike.

    Raises:
        ValueError: a missing score.
    """
    table, w = _one_table("baldwin", scores, weights)
    left = np.arange(len(table))
    while True:
        points = settled((len(left) - ranks(table[left], "max")) @ w)
        if (points == points[0]).all():
            return left.tolist()
        left = left[points > points.min()]


def threshold(scores: ArrayLike, weights: ArrayLike | None = None) -> list[int]:
    """Those that are last on the least weight of tasks; of these, those that are last but one on the least; and so on.

    Ranks are those among all n models, ties sharing the worst: for q = n, ..., 2 keep the models with the greatest weight of
    tasks on which their rank is not q.

    Raises:
        ValueError: a missing score.
    """
    table, w = _one_table("threshold", scores, weights)
    rank = ranks(table, "max")
    left = np.arange(len(table))
    for q in range(len(table), 1, -1):
        left = left[_at_top(settled((rank[left] != q) @ w))]
    return left.tolist()


def could_win(scores: ArrayLike) -> list[int]:
    """The models that lose no duel under some weights of the tasks, found by linear programmes.

    Model i is one if weights >= 0 that sum to 1 exist under which no rival is better on more than i is. Scores may have holes.
    """
    table, _ = _one_table("could_win", scores, None, holes=True)
    better = (table[:, None] > table[None]).astype(np.float64)
    lost = better.transpose(1, 0, 2) - better  # [i, rival, tasks]: 1 where the rival is better
    tasks = table.shape[1]
    programmes = (
        linprog(
            np.zeros(tasks), A_ub=np.delete(rows, i, axis=0), b_ub=np.zeros(len(rows) - 1), A_eq=np.ones((1, tasks)), b_eq=1
        )
        for i, rows in enumerate(lost)
    )
    return [i for i, programme in enumerate(programmes) if programme.status == 0]


def _at_top(values: Floats) -> list[int]:
    return np.flatnonzero(values == values.max()).tolist()


def _one_table(rule: str, scores: ArrayLike, weights: ArrayLike | None, holes: bool = False) -> tuple[Floats, Floats]:
    table, w = read(rule, scores, weights, holes)
    if table.ndim > 2:
        raise ValueError(f"{rule} needs one table [models, tasks]; got shape {table.shape}")
    return table, w
