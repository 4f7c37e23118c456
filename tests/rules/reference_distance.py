"""Rules of distances, subsets and centres, and pre-aggregators, from their equations in float64. Slow on purpose."""

import math
from itertools import combinations

import numpy as np

from .reference import distance, least, mean, median, squared_distance, trimmed_mean

ROUNDING = 1e-12  # subsets whose values differ by less are taken for ties


def around(rows, f, centre):
    """Per coordinate the mean of the n - f values closest to ``centre``, the smaller first among equally close ones."""
    result = []
    for column, middle in zip(zip(*rows, strict=True), centre, strict=True):
        kept = sorted(sorted(column), key=lambda value, middle=middle: abs(value - middle))[: len(rows) - f]
        result.append(math.fsum(kept) / len(kept))
    return result


def mea_med(rows, f):
    """The mean around the median (Xie et al. 2018)."""
    return around(rows, f, median(rows))


def phocas(rows, f):
    """The mean around the trimmed mean (Xie et al. 2018)."""
    return around(rows, f, trimmed_mean(rows, f))


def bulyan_picks(rows, f):
    """Krum again and again on the rows that are left, n - 2f times (El Mhamdi et al. 2018)."""
    left, picks = list(range(len(rows))), []
    while len(picks) < len(rows) - 2 * f:
        count = max(1, len(left) - f - 2)
        scores = []
        for i in left:
            others = sorted(squared_distance(rows[i], rows[j]) for j in left if j != i)
            scores.append(math.fsum(others[:count]))
        picks.append(left.pop(least(scores, 1)[0]))
    return picks


def bulyan(rows, f):
    """The n - 4f values of the picked rows that are closest to their median."""
    picked = [rows[i] for i in bulyan_picks(rows, f)]
    return around(picked, 2 * f, median(picked))


def geometric_median(rows, weights=None, nu=1e-6, T=200, tol=1e-10, start="mean"):
    """Smoothed Weiszfeld on the point itself (Pillutla et al. 2022)."""
    a = [1 / len(rows)] * len(rows) if weights is None else [w / math.fsum(weights) for w in weights]
    z = mean(rows, a) if start == "mean" else [0.0] * len(rows[0])
    w, passes, change = a, 0, math.inf
    while passes < T and change > tol:
        before = [distance(x, z) for x in rows]
        w = [ai / max(nu, far) for ai, far in zip(a, before, strict=True)]
        w = [wi / math.fsum(w) for wi in w]
        z = mean(rows, w)
        change = max(abs(distance(x, z) - far) / max(nu, far) for x, far in zip(rows, before, strict=True))
        passes += 1
    return z, w, passes


def medoid(rows):
    """The sums of unsquared distances."""
    return [math.fsum(distance(x, y) for y in rows) for x in rows]


def first_least(values):
    """The place of the least value, and of the first one among those that rounding alone sets apart."""
    lowest = min(values)
    return next(place for place, value in enumerate(values) if value <= lowest * (1 + ROUNDING) + 1e-300)


def diameter(rows):
    return max((squared_distance(x, y) for x, y in combinations(rows, 2)), default=0.0)


def mda(rows, f):
    """Of all subsets of n - f rows the first with the least diameter (El Mhamdi et al. 2020)."""
    every = list(combinations(range(len(rows)), len(rows) - f))
    return every[min(range(len(every)), key=lambda k: diameter([rows[i] for i in every[k]]))]


def top_eigenvalue(rows):
    """Of the covariance [d, d] of the rows."""
    centred = np.array(rows) - np.mean(rows, axis=0)
    return float(np.linalg.eigvalsh(centred.T @ centred / len(rows))[-1])


def smea(rows, f):
    """Of all subsets of n - f rows the first whose covariance has the least top eigenvalue (Allouah et al. 2023)."""
    every = list(combinations(range(len(rows)), len(rows) - f))
    values = [max(0.0, top_eigenvalue([rows[i] for i in kept])) for kept in every]
    return every[first_least(values)], min(values)


def caf(rows, f, passes_at_most=10_000):
    """The soft filter, with the covariance [d, d] itself (Allouah et al. 2025): weights, least eigenvalue, passes."""
    x, n = np.array(rows), len(rows)
    c, best, shares, passes = np.ones(n), math.inf, np.ones(n) / n, 0
    while c.sum() > n - 2 * f and passes < passes_at_most:
        passes += 1
        mu = c @ x / c.sum()
        values, vectors = np.linalg.eigh((x - mu).T @ (c[:, None] * (x - mu)) / c.sum())
        if values[-1] < best:
            best, shares = values[-1], c / c.sum()
        tau = ((x - mu) @ vectors[:, -1]) ** 2
        if tau.max() < 1e-300:
            break
        c = c * (1 - tau / tau.max())
    return shares, best, passes


def cge(rows, f):
    """The n - f rows of least norm (Gupta et al. 2020)."""
    return least([math.sqrt(math.fsum(x * x for x in row)) for row in rows], len(rows) - f)


def monna(rows, f, reference=0):
    """The n - f rows nearest to the reference, itself first (Farhadkhani et al. 2023)."""
    to_it = [distance(row, rows[reference]) if i != reference else -1.0 for i, row in enumerate(rows)]
    return least(to_it, len(rows) - f)


def nnm(rows, f):
    """Every row becomes the mean of the n - f rows nearest to it (Allouah et al. 2023)."""
    return [mean([rows[j] for j in monna(rows, f, i)]) for i in range(len(rows))]


def buckets(rows, order, s):
    """Plain means of consecutive rows in this order (Karimireddy et al. 2022)."""
    return [mean([rows[i] for i in order[start : start + s]]) for start in range(0, len(rows), s)]


def static_clip(rows, c):
    """x min(1, c / ||x||)."""
    norms = [math.sqrt(math.fsum(x * x for x in row)) for row in rows]
    return [[x * (c / norm if norm > c else 1.0) for x in row] for row, norm in zip(rows, norms, strict=True)]


def arc(rows, f):
    """The floor(2f(n - f)/n) longest rows take the norm of the longest other row (Allouah et al. 2024)."""
    n = len(rows)
    norms = sorted(math.sqrt(math.fsum(x * x for x in row)) for row in rows)
    k = math.floor(2 * f * (n - f) / n + 1e-9)
    return static_clip(rows, norms[n - 1 - k])
