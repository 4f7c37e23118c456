"""What the certified elections share: looking at their inputs, and how many buckets a lead survives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fedagg.errors import ConfigError

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

BLOCK_CELLS = 1 << 21  # test points x models x classes that are looked at in one go
FAR = np.iinfo(np.int64).max // 4  # the lead over nobody


def blocks(points: int, cells: int) -> Iterator[slice]:
    """Yield the test points in blocks; ``cells`` is what one of them takes."""
    size = max(1, BLOCK_CELLS // cells)
    return (slice(start, start + size) for start in range(0, points, size))


def checked_votes(votes: npt.ArrayLike, num_classes: int) -> Array:
    """Return votes [B, k] as an array, or say what is wrong with them."""
    array = np.asarray(votes)
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "iu":
        raise ConfigError(f"votes must be integers [B, k >= 1], one column a model; got {array.dtype} {list(array.shape)}")
    if num_classes < 2:
        raise ConfigError(f"an election needs num_classes >= 2; got {num_classes}")
    _inside("votes", array, num_classes, "classes")
    return array


def checked_logits(logits: npt.ArrayLike) -> Array:
    """Return logits [B, k, C] as an array, or say what is wrong with their type and shape; NaN is looked for in blocks."""
    array = np.asarray(logits)
    if array.ndim != 3 or array.shape[1] == 0 or array.shape[2] < 2 or array.dtype.kind not in "fiu":
        raise ConfigError(f"logits must be real numbers [B, k >= 1, C >= 2]; got {array.dtype} {list(array.shape)}")
    return array


def without_nan(logits: Array, first: int) -> Array:
    """Return a block of logits whose first test point is number ``first``; NaN cannot be ordered, so it is refused."""
    if logits.dtype.kind == "f" and np.isnan(np.min(logits)):
        point, model, label = (int(place[0]) for place in np.nonzero(np.isnan(logits)))
        raise ConfigError(
            f"logits must not be NaN; got NaN for test point {first + point}, model {model}, class {label}. "
            "Let a model that diverged answer with zeros: that is a vote like any other, and the certificate holds"
        )
    return logits


def checked_labels(labels: npt.ArrayLike | None, points: int, num_classes: int) -> Array | None:
    """Return labels [B] as an array, or say what is wrong with them."""
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.shape != (points,) or array.dtype.kind not in "iu":
        raise ConfigError(f"labels must be integers [B={points}], one a test point; got {array.dtype} {list(array.shape)}")
    _inside("labels", array, num_classes, "classes")
    return array


def checked_spread(spread: npt.ArrayLike, learners: int) -> Integers:
    """Return spread [buckets, d], rows ascending, or say what is wrong with it."""
    array = np.asarray(spread)
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "iu":
        raise ConfigError(f"spread must be integers [buckets, d >= 1]; got {array.dtype} {list(array.shape)}")
    _inside("spread", array, learners, "models")
    rows = np.sort(array.astype(np.int64), axis=1)
    twice = np.flatnonzero((rows[:, 1:] == rows[:, :-1]).any(axis=1))
    if len(twice):
        raise ConfigError(f"spread must name a learner once a bucket; row {twice[0]} is {array[twice[0]].tolist()}")
    idle = np.setdiff1d(np.arange(learners), rows)
    if len(idle):
        raise ConfigError(f"spread must give every learner a bucket; learner {idle[0]} of {learners} reads none")
    return rows


def one_hot(votes: Array, num_classes: int) -> npt.NDArray[np.bool_]:
    """Return whether a model votes for a class, [b, C, k], for votes [b, k]."""
    small = np.min_scalar_type(num_classes)
    classes: Array = np.arange(num_classes, dtype=small)
    chosen: npt.NDArray[np.bool_] = votes.astype(small)[:, None, :] == classes[:, None]
    return chosen


def by_bucket(models: npt.NDArray[np.bool_], spread: Integers) -> Array:
    """Count, for each bucket, the models that read it and are marked: [..., k] -> [..., buckets].

    The type is the smallest that holds 3 d, so that sums of what a bucket can change do too.
    """
    kind = np.min_scalar_type(3 * spread.shape[1])
    marked = np.ascontiguousarray(models.reshape(-1, models.shape[-1]).T)  # a model's marks lie together: quick to gather
    counts = np.zeros((len(spread), marked.shape[1]), dtype=kind)
    for learners in spread.T:
        counts += marked[learners]
    return np.ascontiguousarray(counts.T).reshape(*models.shape[:-1], len(spread))


def leads(tally: Integers, over: Integers) -> Integers:
    """Return by how much ``over`` [b] is ahead of every class, [b, C]; a class is past it where that is 0 or less.

    It is the difference of the votes, and one more where the class would lose a tie, having the larger index. Nobody is ahead
    of itself: there it is ``FAR``.
    """
    classes, points = np.arange(tally.shape[1]), np.arange(len(tally))
    lead: Integers = tally[points, over][:, None] - tally + (classes > over[:, None])
    lead[points, over] = FAR
    return lead


def needed(lead: Integers, gains: Array) -> Integers:
    """Return how many buckets bring a lead [b] to 0 or less, where bucket i takes ``gains[:, i]`` of it; [b].

    The buckets that take most come first. 0 where there is no lead, one more than there are buckets where all are too few.
    """
    buckets = gains.shape[1]
    counting = np.min_scalar_type(buckets)
    result = np.where(lead > 0, buckets + 1, 0)
    most = int(gains.max(initial=0))
    left = np.where(lead > buckets * most, 0, lead)  # of the lead; nobody needs to count where all buckets are too few
    above = np.zeros_like(lead)  # how many buckets take more than ``gain``
    for gain in range(most, 0, -1):
        these = (gains >= gain).sum(axis=1, dtype=counting).astype(np.int64) - above
        enough = (left > 0) & (left <= these * gain)
        result[enough] = (above - (-left // gain))[enough]
        left -= these * gain
        above += these
        if left.max(initial=0) <= 0:  # mostly a few of the largest gains are enough
            break
    return result


def _inside(name: str, array: Array, end: int, what: str) -> None:
    if array.size and not 0 <= array.min() <= array.max() < end:
        raise ConfigError(f"{name} must lie in 0 .. {end - 1}, the {what}; got {array.min()} .. {array.max()}")
