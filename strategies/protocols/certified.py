"""Certified elections: models trained apart vote, and how many poisoned parts a prediction survives is proved by counting.

Training data are cut into parts by a hash, one model is trained on each, and whoever poisons r parts changes the votes of no
other model. Three ways of counting, from votes or logits of B test points:

    dpa                  one part a model; the most votes win
    finite_aggregation   a part is read by d models, a model reads d parts; the most votes win
    run_off_election     the two classes with most votes meet again, and every model says which it prefers

Each returns the prediction and its radius: so many poisoned parts leave it as it is, whatever is put into them. Where parts
are groups of clients that is a number of malicious clients. Training must be deterministic and apart (``fedagg.certified``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from fedagg.errors import ConfigError
from strategies.protocols._certified_votes import (
    Array,
    Integers,
    blocks,
    by_bucket,
    checked_labels,
    checked_logits,
    checked_spread,
    checked_votes,
    leads,
    needed,
    one_hot,
    without_nan,
)


def dpa(votes: npt.ArrayLike, num_classes: int, labels: npt.ArrayLike | None = None) -> tuple[Integers, Integers]:
    """Elect the class with most votes, every model having a part of the data to itself (Deep Partition Aggregation).

    Levine, Feizi, "Deep Partition Aggregation: Provable Defenses against General Poisoning Attacks", ICLR 2021. With N_c votes
    for class c and w the winner, the radius is min over c != w of floor((N_w - N_c - [c < w]) / 2).

    Args:
        votes: the class that each model gives each test point.
        num_classes: C >= 2.
        labels: the true classes; where the prediction is another, the radius is -1.

    Shapes: votes [B, k], labels [B] -> prediction [B], radius [B], int64. Ties go to the smaller class.
    Bound: radius <= k / 2.
    Cost: O(B k C) time; memory for a block of test points.

    Raises:
        ConfigError: votes or labels that are no classes, or of another shape.

    Example:
        >>> dpa([[0, 0, 0, 0, 1, 1], [2, 2, 2, 1, 1, 1]], num_classes=3)
        (array([0, 1]), array([1, 0]))
    """
    votes = checked_votes(votes, num_classes)
    return finite_aggregation(votes, num_classes, spread_matrix(votes.shape[1], [0]), labels)


def finite_aggregation(
    votes: npt.ArrayLike, num_classes: int, spread: npt.ArrayLike, labels: npt.ArrayLike | None = None
) -> tuple[Integers, Integers]:
    """Elect the class with most votes where every bucket of data is read by d learners (Finite Aggregation).

    Wang, Levine, Feizi, "Improved Certified Defenses against Data Poisoning with (Deterministic) Finite Aggregation", ICML
    2022. A poisoned bucket b takes at most Delta_b = sum over its learners j of (1 + [vote_j = w] - [vote_j = c]) of the
    winner's lead over class c. The radius is the largest r such that for every c the sum of the r largest Delta_b is at most
    N_w - N_c - [c < w].

    Args:
        votes: the class that each learner gives each test point; column j is learner j.
        num_classes: C >= 2.
        spread: row b lists the learners that read bucket b; see ``spread_matrix``.
        labels: the true classes; where the prediction is another, the radius is -1.

    Shapes: votes [B, learners], spread [buckets, d], labels [B] -> prediction [B], radius [B] in buckets, int64.
    Cost: O(B C d buckets) time; memory for a block of test points.

    Raises:
        ConfigError: votes, labels or learners that do not exist; a learner twice in a bucket, or in none.

    Example:
        >>> finite_aggregation([[0, 0, 0, 0, 1, 2]], num_classes=3, spread=spread_matrix(6, [2, 0]))
        (array([0]), array([0]))
    """
    votes = checked_votes(votes, num_classes)
    spread = checked_spread(spread, votes.shape[1])
    labels = checked_labels(labels, len(votes), num_classes)
    prediction, radius = _nothing(len(votes))
    for rows in blocks(len(votes), num_classes * max(votes.shape[1], len(spread))):
        chosen = one_hot(votes[rows], num_classes)
        tally = chosen.sum(axis=2)
        prediction[rows] = winner = tally.argmax(axis=1)
        radius[rows] = _takeovers(leads(tally, winner), by_bucket(chosen, spread), winner, spread.shape[1]).min(axis=1) - 1
    return prediction, _where_right(prediction, radius, labels)


def run_off_election(
    logits: npt.ArrayLike, spread: npt.ArrayLike | None = None, labels: npt.ArrayLike | None = None
) -> tuple[Integers, Integers]:
    """Let the two classes with most votes meet again: each model prefers the one with the larger logit (Run-Off Election).

    Rezaei et al., "Run-Off Election: Improved Provable Defense against Data Poisoning Attacks", ICML 2023. A model votes for
    its largest logit. In the second round a model whose logits for the finalists are equal votes for the one behind, and an
    equal count elects the smaller class. The winner is lost if two others pass it in the first round, or if one takes the
    place of the other finalist and beats it in the second; the radius is one less than the buckets the cheapest way needs.

    Args:
        logits: of each test point, model and class, comparable within one model. Where several models share a part (DPA*), the
            sum of their logits. A model's ties go to the smaller class in the first round.
        spread: row b lists the models that read bucket b; None is a part of its own for each model.
        labels: the true classes; where the prediction is another, the radius is -1.

    Shapes: logits [B, k, C], spread [buckets, d], labels [B] -> prediction [B], radius [B] in buckets, int64.
    Bound: with two classes nobody can be pushed out of the second round, and the radius is that of a vote between the two. The
        radius is never too large; it is one too small where no model can take part in both of the changes that must meet, in
        18 of the 2,002 electorates of 9 models and 3 classes.
    Cost: O(B C d buckets) time, and C^2 instead of C where the first round is what counts; memory for a block of test points.
    Differs from the source: where equal logits count against p it could come out at -1; it is 0, since doing nothing changes
        nothing. There is no limit on k.

    Raises:
        ConfigError: NaN; labels or models that do not exist; a model twice in a bucket, or in none.

    Example:
        >>> first, second, third = [3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [1.0, 2.0, 3.0]
        >>> run_off_election([[first] * 4 + [second] * 3 + [third] * 2])
        (array([1]), array([0]))
    """
    logits = checked_logits(logits)
    points, models, num_classes = logits.shape
    spread = spread_matrix(models, [0]) if spread is None else checked_spread(spread, models)
    labels = checked_labels(labels, points, num_classes)
    prediction, radius = _nothing(points)
    for rows in blocks(points, num_classes * max(models, len(spread))):
        prediction[rows], radius[rows] = _run_off(without_nan(logits[rows], rows.start), spread)
    return prediction, _where_right(prediction, radius, labels)


def spread_matrix(num_learners: int, shifts: Sequence[int]) -> Integers:
    """Return which learners read which bucket, [num_learners, len(shifts)]: entry (b, i) is (b + shifts[i]) mod num_learners.

    Args:
        num_learners: as many buckets as learners, k d.
        shifts: d of them, different modulo ``num_learners``. Wang et al. take
            ``random.Random(1000000207).sample(range(num_learners), d)``.

    Raises:
        ConfigError: no learner, no shift, two that are equal, or numbers that are no integers.

    Example:
        >>> spread_matrix(3, [0, 2]).tolist()
        [[0, 2], [1, 0], [2, 1]]
    """
    count, given = np.asarray(num_learners), np.asarray(shifts)
    if count.dtype.kind not in "iu" or num_learners < 1 or not given.size or given.dtype.kind not in "iu":
        raise ConfigError(f"a spread needs integers, num_learners >= 1 and a shift; got {num_learners} and {list(shifts)}")
    places: Integers = given.astype(np.int64) % num_learners
    if len(np.unique(places)) != len(places):
        raise ConfigError(f"shifts must be different modulo {num_learners}; got {list(shifts)}")
    return (np.arange(num_learners)[:, None] + places) % num_learners


def _run_off(logits: Array, spread: Integers) -> tuple[Integers, Integers]:
    """Return prediction and radius of a block of test points."""
    points, num_classes, d = np.arange(len(logits)), logits.shape[2], spread.shape[1]
    chosen = one_hot(logits.argmax(axis=2), num_classes)
    tally = chosen.sum(axis=2)
    first = tally.argmax(axis=1)
    others = tally.copy()
    others[points, first] = -1
    second = others.argmax(axis=1)
    prefer_first = (logits[points, :, first] > logits[points, :, second]).sum(axis=1)
    margin = 2 * prefer_first - logits.shape[1] + (second > first)
    p, q = np.where(margin > 0, first, second), np.where(margin > 0, second, first)

    votes = by_bucket(chosen, spread)
    prefers = logits[points, :, p][:, None, :] > logits.transpose(0, 2, 1)
    ahead = 2 * prefers.sum(axis=2) - logits.shape[1] + (np.arange(num_classes) > p[:, None])
    lost = 2 * by_bucket(prefers, spread)
    replaced = _takeovers(leads(tally, q), votes, q, d)
    replaced[points, q] = 0  # q is in the second round already
    beaten = np.stack([needed(ahead[:, c], lost[:, c]) for c in range(num_classes)], axis=1)
    cost = np.maximum(replaced, beaten)
    cost[points, p] = len(spread) + 1
    cheapest = cost.min(axis=1)

    lead = leads(tally, p)
    passed = _takeovers(lead, votes, p, d)
    for c1, c2 in combinations(range(num_classes), 2):
        apart = np.maximum(passed[:, c1], passed[:, c2])
        open_ = np.flatnonzero(apart < cheapest)  # never where p is one of them: nobody passes itself
        if len(open_):
            gains = d + 2 * votes[open_, p[open_]] - votes[open_, c1] - votes[open_, c2]
            both = needed(lead[open_, c1] + lead[open_, c2], gains)
            cheapest[open_] = np.minimum(cheapest[open_], np.maximum(apart[open_], both))
    return p, np.maximum(cheapest, 1) - 1


def _takeovers(lead: Integers, votes: Array, over: Integers, d: int) -> Integers:
    """Return how many buckets let each class pass ``over`` [b] in the first round, [b, C].

    Args:
        lead: [b, C], of ``over``.
        votes: [b, C, buckets], how many readers of a bucket vote for a class.
        over: the class that is passed.
        d: readers of a bucket.
    """
    own = d + votes[np.arange(len(votes)), over]
    return np.stack([needed(lead[:, c], own - votes[:, c]) for c in range(votes.shape[1])], axis=1)


def _nothing(points: int) -> tuple[Integers, Integers]:
    return np.zeros(points, dtype=np.int64), np.zeros(points, dtype=np.int64)


def _where_right(prediction: Integers, radius: Integers, labels: Array | None) -> Integers:
    return radius if labels is None else np.where(prediction == labels, radius, -1)
