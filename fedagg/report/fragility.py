"""How easily a winner changes: with other results on some tasks, with other seeds, or without a strategy that lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations_with_replacement
from math import factorial, prod

import numpy as np
from numpy.typing import NDArray

from fedagg.report.measures import Floats
from fedagg.report.rules import Rule, Winners
from fedagg.report.voting import borda

ALL_DRAWS = 5  # seeds up to which every resample is counted
DRAWS = 1000  # of more seeds
_ROOM = 2_000_000  # comparisons held at once

Points = Callable[[Floats], Floats]


def resampled(rule: Rule, seeds: Floats) -> Floats:
    """The share of resamples of the seeds, drawn with replacement and the same for all, in which each strategy wins.

    A shared win counts for each of those who share it. Up to five seeds all resamples are counted, with their probabilities;
    of more, 1000 are drawn, always the same.

    Args:
        rule: elects.
        seeds: [seeds, strategies, tasks]; every strategy was run on every task with these.
    """
    n = len(seeds)
    if n <= ALL_DRAWS:
        draws = np.array(list(combinations_with_replacement(range(n), n)))
        ways = [factorial(n) // prod(map(factorial, Counter(draw).values())) for draw in draws.tolist()]
        shares = np.array(ways) / n**n
    else:
        draws = np.random.default_rng(0).integers(n, size=(DRAWS, n))
        shares = np.full(DRAWS, 1 / DRAWS)
    return np.asarray(shares @ _elect(rule, np.stack([seeds[draw].mean(axis=0) for draw in draws])))


def tasks_to_change(rule: Rule, scores: Floats, limits: tuple[float, float]) -> tuple[int, bool] | None:
    """On how many tasks at least the results would have to be others for a strategy to win that does not win now.

    For every rival, tasks are changed in the order of what that brings: the rival becomes the best, the winners the worst, and
    the others stay between them in their order. What it brings is told by the rule itself, or by Borda where a rule's scores
    are no sums over tasks.

    Args:
        rule: elects.
        scores: [strategies, tasks]; NaN is missing and stays so, -inf is worse than all.
        limits: the worst and the best result there may be.

    Returns:
        the number, and whether fewer are proved not to do; None where nobody wins or nobody loses.
    """
    now = rule.elects(scores)
    rivals = np.flatnonzero(~now)
    if not now.any() or not len(rivals):
        return None
    turned = np.stack([_turned(scores, int(rival), now, limits) for rival in rivals])
    points = rule.scores if rule.additive and rule.scores else borda
    brings = _leads(points, turned, rivals, now, limits[0]) - _leads(points, scores[None], rivals, now, limits[0])
    place = np.argsort(np.argsort(-brings, axis=1, kind="stable"), axis=1)
    proved = rule.additive and now.sum() == 1 and not np.isnan(scores).any()
    for count in range(1, scores.shape[1] + 1):
        changed = np.where((place < count)[:, None, :], turned, scores)
        if _elect(rule, changed)[:, ~now].any():
            return count, bool(count == 1 or proved)
    return None


def upset_by(rule: Rule, scores: Floats) -> list[int]:
    """The strategies that do not win, and without which the winners would be others."""
    now = rule.elects(scores)
    found = []
    for loser in np.flatnonzero(~now):
        rest = np.delete(scores, loser, axis=0)
        met = ~np.isnan(rest).all(axis=0)  # without it, some tasks may have no result at all
        if met.any() and (rule.elects(rest[:, met]) != np.delete(now, loser)).any():
            found.append(int(loser))
    return found


def _turned(scores: Floats, rival: int, winners: Winners, limits: tuple[float, float]) -> Floats:
    """Every task with the best result for the rival, the worst for the winners, and the others in between."""
    low, high = limits
    between = (np.argsort(np.argsort(scores, axis=0, kind="stable"), axis=0) + 1) / (len(scores) + 1)
    changed = low + (high - low) * between
    changed[winners] = low
    changed[rival] = high
    return np.where(np.isnan(scores), np.nan, changed)


def _leads(points: Points, tables: Floats, rivals: NDArray[np.int64], winners: Winners, worst: float) -> Floats:
    """[rival, task]: the rival's points on each task alone, minus the most that a winner has; what is missing is the worst.

    A rival without a finite value is infinitely far behind by the means: to win it must change that task before all others.
    """
    known = np.where(np.isnan(tables), worst, tables)
    alone = np.swapaxes(points(np.swapaxes(known, -1, -2)[..., None]), -1, -2)  # [rival or 1, strategies, tasks]
    alone = np.broadcast_to(alone, (len(rivals), *alone.shape[1:]))
    return np.asarray(alone[np.arange(len(rivals)), rivals] - alone[:, winners].max(axis=1))


def _elect(rule: Rule, tables: Floats) -> Winners:
    """Who wins in each of many tables, a few of them at a time."""
    size = max(1, _ROOM // (tables.shape[1] ** 2 * tables.shape[2]))
    return np.concatenate([rule.elects(tables[start : start + size]) for start in range(0, len(tables), size)])
