"""Whether two strategies differ, from what both scored under the same attacks with the same seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr

from fedagg.report.measures import Floats

ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """A strategy against the best, on the cells that both have.

    Args:
        n: pairs.
        difference: mean of the strategy's value minus the best one's.
        p: two-sided, of the paired t-test, Holm-corrected for all strategies compared with this best; NaN where no test is
            possible (one pair, or a value that is not finite).
    """

    n: int
    difference: float
    p: float

    @property
    def tied(self) -> bool:
        """Whether the test does not tell the two apart."""
        return self.p >= ALPHA


def compare(best: Mapping[Any, float], others: Sequence[Mapping[Any, float]]) -> list[Comparison]:
    """Compare each of the others with the best; all give a value by cell, such as (attack, seed)."""
    differences = [np.array([other[cell] - best[cell] for cell in best if cell in other], np.float64) for other in others]
    adjusted = holm([paired_t(d) for d in differences])
    means = [float(d.mean()) if len(d) else math.nan for d in differences]
    return [Comparison(len(d), mean, p) for d, mean, p in zip(differences, means, adjusted, strict=True)]


def paired_t(differences: Floats) -> float:
    """Two-sided p of the t-test that ``differences`` [n] have mean 0, with n - 1 degrees of freedom.

    t = mean / (s / sqrt(n)), with s the standard deviation (n - 1 in its denominator). Differences that are all alike leave
    nothing to chance: p is 1 if they are 0, else 0. NaN for fewer than two, or where one is not finite.

    Example:
        >>> round(paired_t(np.array([1.0, 2.0, 3.0])), 4)
        0.0742
    """
    n = len(differences)
    if n < 2 or not np.isfinite(differences).all():
        return math.nan
    error = differences.std(ddof=1) / math.sqrt(n)
    if error == 0:
        return float(differences[0] == 0)
    return float(2 * stdtr(n - 1, -abs(differences.mean() / error)))


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number, as Holm does: the k-th smallest of m times m - k + 1, never below the one before it.

    A test that could not be made (NaN) stays as it is and is not counted.

    Example:
        >>> holm([0.04, 0.01, 0.5])
        [0.08, 0.03, 0.5]
    """
    order = sorted((i for i, value in enumerate(p) if not math.isnan(value)), key=lambda i: p[i])
    adjusted, largest = list(p), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p[i]))
        adjusted[i] = largest
    return adjusted
