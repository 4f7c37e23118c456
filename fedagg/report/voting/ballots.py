"""What every rule starts from: a checked table of scores, ranks within tasks, and who beats whom."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from fedagg.report.measures import Floats

ROUNDING = 1e-12  # sums that differ by less than this share of the largest differ by the order of their terms


class MissingScore(ValueError):
    """A rule met a hole in the table that it cannot deal with."""

    def __init__(self, rule: str, model: int, task: int) -> None:
        super().__init__(f"{rule} needs every score, but model {model} has none on task {task}")
        self.rule, self.model, self.task = rule, model, task


class NegativeScore(ValueError):
    """A rule that takes roots or logarithms met a score below 0."""

    def __init__(self, rule: str, model: int, task: int, score: float) -> None:
        super().__init__(f"{rule} needs scores >= 0; that of model {model} on task {task} is {score:g}")
        self.rule, self.model, self.task = rule, model, task


def read(rule: str, scores: ArrayLike, weights: ArrayLike | None, holes: bool = False) -> tuple[Floats, Floats]:
    """Scores [..., models, tasks] and weights [tasks] as arrays.

    Args:
        rule: who asks; named in errors.
        scores: of any number of tables at once; NaN is a missing score.
        weights: of the tasks; None gives each 1.
        holes: whether the rule can do without some scores. None can do with a task that nobody has a score on.

    Raises:
        ValueError: no table, weights that do not fit it or are negative, or a missing score (:class:`MissingScore`).
    """
    table = np.asarray(scores, np.float64)
    if table.ndim < 2 or 0 in table.shape:
        raise ValueError(f"{rule} needs scores [models, tasks], at least one of each; got shape {table.shape}")
    tasks = table.shape[-1]
    w = np.ones(tasks) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (tasks,):
        raise ValueError(f"{rule} needs a weight for each of {tasks} tasks; got shape {w.shape}")
    if not (np.isfinite(w) & (w >= 0)).all():
        raise ValueError(f"{rule} needs finite weights >= 0; got {w.tolist()}")
    missing = np.isnan(table)
    if missing.any():
        if missing.all(axis=-2).any():
            raise ValueError(
                f"{rule} needs a score on every task; nobody has one on task {np.argwhere(missing.all(-2))[0][-1]}"
            )
        if not holes:
            model, task = np.argwhere(missing)[0][-2:].tolist()
            raise MissingScore(rule, model, task)
    return table, w


def ranks(table: Floats, ties: str) -> Floats:
    """Ranks [..., models, tasks] within each task, 1 for the best; equal scores share their ``min`` or their ``max`` rank."""
    return np.asarray(rankdata(-table, method=ties, axis=-2), np.float64)


def wins(table: Floats, weights: Floats) -> Floats:
    """``wins[..., a, b]``: weight of the tasks on which a is better than b; a missing score on either side counts for none."""
    better = table[..., :, None, :] > table[..., None, :, :]
    found = better @ weights
    return settled(found.reshape(*found.shape[:-2], -1)).reshape(found.shape)


def settled(values: Floats) -> Floats:
    """Make equal what differs by rounding alone along the last axis, so that ties are ties whatever was added first.

    Example:
        >>> settled(np.array([0.1 + 0.2, 1.0, 0.3])).tolist()
        [0.3, 1.0, 0.3]
    """
    order = np.argsort(values, axis=-1, kind="stable")
    ascending = np.take_along_axis(values, order, -1)
    size = np.where(np.isfinite(values), np.abs(values), 0.0).max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # two infinities are equal: their difference is NaN, which is not above
        apart = np.diff(ascending, axis=-1) > ROUNDING * size
    first = np.zeros_like(order)  # where the run of equal values began
    first[..., 1:] = np.where(apart, np.arange(1, values.shape[-1]), 0)
    first = np.maximum.accumulate(first, axis=-1)
    found = np.empty_like(values)
    np.put_along_axis(found, order, np.take_along_axis(ascending, first, -1), -1)
    return found
