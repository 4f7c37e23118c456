"""Rules that give every model a number.

All take ``scores`` [..., models, tasks] and return [..., models]; leading dimensions are tables of their own. n is the number
of models, w_t the weight of task t, W(a, b) the weight of the tasks on which a is better than b.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fedagg.console import suggest
from fedagg.report.measures import Floats
from fedagg.report.voting.ballots import NegativeScore, ranks, read, settled, wins

COPELAND = ("difference", "lower", "lower_with_ties", "upper")
MINIMAX = ("winning_votes", "margins", "pairwise_opposition")


def plurality(scores: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Weight of the tasks on which the model is best alone; a shared first place counts for nobody.

    Raises:
        ValueError: a missing score.
    """
    table, w = read("plurality", scores, weights)
    return settled((ranks(table, "max") <= 1) @ w)


def borda(scores: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Number of models that are strictly worse, summed over tasks with their weights.

    Raises:
        ValueError: a missing score.

    Example:
        >>> borda([[90, 70, 80], [85, 70, 85], [80, 60, 90]]).tolist()
        [3.0, 3.0, 2.0]
    """
    table, w = read("borda", scores, weights)
    return settled((table.shape[-2] - ranks(table, "max")) @ w)


def dowdall(scores: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """1 / rank, ties sharing the best rank, summed over tasks with their weights: being first counts for much.

    Raises:
        ValueError: a missing score.
    """
    table, w = read("dowdall", scores, weights)
    return settled((1 / ranks(table, "min")) @ w)


def copeland(scores: ArrayLike, weights: ArrayLike | None = None, variant: str = "difference") -> Floats:
    """Duels: a beats b if W(a, b) > W(b, a).

    Args:
        scores: may have holes; a task that lacks a score of either counts for neither.
        weights: of the tasks.
        variant: ``difference`` duels won minus lost; ``lower`` duels won; ``lower_with_ties`` won and half of the tied;
            ``upper`` minus the duels lost.
    """
    _known("copeland", variant, COPELAND)
    table, w = read("copeland", scores, weights, holes=True)
    for_, against = _duels(wins(table, w))
    won, lost = (for_ > against).sum(axis=-1), (for_ < against).sum(axis=-1)
    tied = table.shape[-2] - 1 - won - lost
    found = {"difference": won - lost, "lower": won, "lower_with_ties": won + tied / 2, "upper": -lost}
    return np.asarray(found[variant], np.float64)


def minimax(scores: ArrayLike, weights: ArrayLike | None = None, variant: str = "winning_votes") -> Floats:
    """Minus the worst duel of the model; the best lose none, or none by much. One model alone scores 0.

    Args:
        scores: may have holes; a task that lacks a score of either counts for neither.
        weights: of the tasks.
        variant: how bad a duel against b is: ``winning_votes`` W(b, i) where that is lost, else 0; ``margins``
            W(b, i) - W(i, b), below 0 where it is won; ``pairwise_opposition`` W(b, i) in any case.
    """
    _known("minimax", variant, MINIMAX)
    table, w = read("minimax", scores, weights, holes=True)
    if table.shape[-2] == 1:
        return np.zeros(table.shape[:-1])
    for_, against = _duels(wins(table, w))
    bad = {"winning_votes": np.where(against > for_, against, 0.0), "margins": against - for_, "pairwise_opposition": against}
    return settled(0.0 - bad[variant].max(axis=-1))


def arithmetic_mean(scores: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Weighted mean; a missing score is taken to be the median of its task. A score of -inf leaves the model last.

    Raises:
        ValueError: weights that are all 0, or a score of +inf.
    """
    table, w = read("arithmetic_mean", scores, weights, holes=True)
    return _mean("arithmetic_mean", _filled(table), w)


def geometric_mean(scores: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Weighted geometric mean: the product of the scores, each to the power of its weight.

    Raises:
        ValueError: a missing or a negative score, +inf, or weights that are all 0.
    """
    table, w = read("geometric_mean", scores, weights)
    if (table < 0).any():
        model, task = np.argwhere(table < 0)[0][-2:].tolist()
        found = table[..., model, task].min()
        raise NegativeScore("geometric_mean", model, task, float(found))
    with np.errstate(divide="ignore"):
        return np.exp(_mean("geometric_mean", np.log(table), w))


def optimality_gap(scores: ArrayLike, weights: ArrayLike | None = None, gamma: float = 95.0) -> Floats:
    """Weighted mean of min(score, gamma) - gamma: how far the model is from good enough; never positive.

    Args:
        scores: in the unit of ``gamma``; a missing one is taken to be the median of its task.
        weights: of the tasks.
        gamma: a score that is good enough; more earns nothing.

    Raises:
        ValueError: weights that are all 0.
    """
    table, w = read("optimality_gap", scores, weights, holes=True)
    return _mean("optimality_gap", np.minimum(_filled(table), gamma) - gamma, w)


def _duels(against: Floats) -> tuple[Floats, Floats]:
    """Weights for and against each model in each of its duels, [..., models, models - 1]."""
    n = against.shape[-1]
    others = ~np.eye(n, dtype=bool)
    shape = (*against.shape[:-1], n - 1)
    return against[..., others].reshape(shape), np.swapaxes(against, -1, -2)[..., others].reshape(shape)


def _filled(table: Floats) -> Floats:
    holes = np.isnan(table)
    return np.where(holes, np.nanmedian(table, axis=-2, keepdims=True), table) if holes.any() else table


def _mean(rule: str, table: Floats, weights: Floats) -> Floats:
    if not weights.any():
        raise ValueError(f"{rule} needs a weight above 0; all are 0")
    if np.isposinf(table).any():
        raise ValueError(f"{rule} needs scores below infinity")
    counted = weights > 0  # 0 times -inf is no number
    return settled(table[..., counted] @ (weights[counted] / weights.sum()))


def _known(rule: str, variant: str, variants: tuple[str, ...]) -> None:
    if variant not in variants:
        raise ValueError(f"{rule} has no variant {variant!r}{suggest(variant, variants)}; it has {', '.join(variants)}")
