"""Clipping, sign, reputation, trust and clustering rules, written again from their equations, in float64. Slow on purpose."""

import math

import numpy as np

from .reference import distance, mean


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def norm(a):
    return math.sqrt(dot(a, a))


def cosine(a, b):
    return 0.0 if norm(a) == 0 or norm(b) == 0 else dot(a, b) / norm(a) / norm(b)


def middle(values):
    ranked, n = sorted(values), len(values)
    return (ranked[(n - 1) // 2] + ranked[n // 2]) / 2


def sign(x):
    return (x > 0) - (x < 0)


def centered_clip(rows, tau, passes=1, center=None):
    """v <- v + (1/n) sum (x_i - v) min(1, tau / ||x_i - v||) (Karimireddy et al. 2021)."""
    v = [0.0] * len(rows[0]) if center is None else center
    for _ in range(passes):
        pulls = []
        for x in rows:
            away = distance(x, v)
            pulls.append([(a - b) * (1.0 if away <= tau else tau / away) for a, b in zip(x, v, strict=True)])
        v = [b + step for b, step in zip(v, mean(pulls), strict=True)]
    return v


def sign_sums(rows):
    return [sum(sign(x) for x in column) for column in zip(*rows, strict=True)]


def robust_learning_rate(rows, theta, weights=None):
    """The weighted mean, turned where fewer than theta votes are left over (Ozdayi et al. 2021)."""
    return [m if abs(s) >= theta else -m for m, s in zip(mean(rows, weights), sign_sums(rows), strict=True)]


def fl_trust(rows, root):
    """Trust scores and the sum of TS_i ||g|| / ||x_i|| x_i over the sum of TS_i (Cao et al. 2021)."""
    trust = [max(0.0, cosine(x, root)) for x in rows]
    if sum(trust) == 0:
        return trust, root
    shares = [t * norm(root) / norm(x) / math.fsum(trust) if t else 0.0 for t, x in zip(trust, rows, strict=True)]
    return trust, mean(rows, shares)


def fools_gold_alpha(histories):
    """The weights before division (Fung et al. 2020, Algorithm 1)."""
    n = len(histories)
    cs = [[0.0 if i == j else cosine(histories[i], histories[j]) for j in range(n)] for i in range(n)]
    v = [max(row) for row in cs]
    for i in range(n):
        for j in range(n):
            if v[j] > v[i]:
                cs[i][j] *= v[i] / v[j]
    alpha = [min(1.0, max(0.0, 1 - max(row))) for row in cs]
    top = max(alpha)
    logits = []
    for a in alpha:
        share = a / top
        share = 0.99 if share == 1 else share
        logits.append(0.0 if share == 0 else min(1.0, max(0.0, math.log(share / (1 - share)) + 0.5)))
    return logits


def first_majority(distances):
    """The first group of more than half of the points that is connected by steps of some length, the shorter the better.

    That is what HDBSCAN labels where clusters must have more than half of the points and density is not smoothed.
    """
    n = len(distances)
    for step in sorted({distances[i][j] for i in range(n) for j in range(i)}):
        for seed in range(n):
            group, new = {seed}, [seed]
            while new:
                i = new.pop()
                near = [j for j in range(n) if j not in group and distances[i][j] <= step]
                group.update(near)
                new += near
            if len(group) > n // 2:
                return sorted(group)
    return list(range(n))


def flame(rows):
    """The rows kept, and the mean of them clipped to the median norm of all (Nguyen et al. 2022), without noise."""
    n = len(rows)
    kept = first_majority([[max(1e-12, 1 - cosine(rows[i], rows[j])) for j in range(n)] for i in range(n)])
    limit = middle([norm(x) for x in rows])
    return kept, mean([clipped(rows[i], limit) for i in kept])


def clipped(x, limit):
    return x if norm(x) <= limit else [value * limit / norm(x) for value in x]


def sign_features(rows, start, width):
    """Shares of positive, zero and negative entries, each divided by the largest (Xu et al. 2022)."""
    shares = [[sum(sign(x) == kind for x in row[start : start + width]) / width for kind in (1, 0, -1)] for row in rows]
    tops = [max(column) for column in zip(*shares, strict=True)]
    return [[s / top if top else 0.0 for s, top in zip(row, tops, strict=True)] for row in shares]


def mean_shift_labels(points, wider=1.0, turn=1):
    """Flat-kernel mean shift with the mean distance to the (n/2)-th nearest point as bandwidth; -1 is nobody's.

    ``wider`` scales the bandwidth, and ``turn`` -1 reverses which of two equally dense modes comes first.
    """
    n = len(points)
    bandwidth = wider * math.fsum(sorted(distance(p, q) for q in points)[max(1, n // 2) - 1] for p in points) / n
    if bandwidth == 0:
        return [0] * n
    modes = {}
    for seed in points:
        center = seed
        for _ in range(300):
            near = [q for q in points if distance(center, q) <= bandwidth]
            old, center = center, mean(near)
            if distance(old, center) <= 1e-3 * bandwidth:
                break
        modes[tuple(center)] = len(near)
    centers = []
    for mode in sorted(modes, key=lambda mode: (modes[mode], [turn * x for x in mode]), reverse=True):
        if all(distance(mode, other) > bandwidth for other in centers):
            centers.append(mode)
    labels = []
    for p in points:
        apart, label = min((distance(p, c), k) for k, c in enumerate(centers))
        labels.append(label if apart <= bandwidth else -1)
    return labels


def sign_guard(rows, start, width, low=0.1, high=3.0):
    """The rows kept by both filters, and the mean of them clipped to the median norm (Xu et al. 2022)."""
    lengths = [norm(x) for x in rows]
    limit = middle(lengths)
    usual = {i for i, length in enumerate(lengths) if low * limit < length < high * limit}
    labels = mean_shift_labels(sign_features(rows, start, width))
    biggest = max(sorted(set(labels) - {-1}), key=labels.count)
    kept = sorted(usual & {i for i, label in enumerate(labels) if label == biggest}) or sorted(usual)
    return kept, mean([clipped(rows[i], limit) for i in kept] or [[0.0] * len(rows[0])])


def zeno(rows, f, loss, rho, gamma):
    """Scores, and the mean of the n - f highest (Xie et al. 2019)."""
    zero = loss([0.0] * len(rows[0]))
    scores = [zero - loss([gamma * x for x in row]) - rho * dot(row, row) for row in rows]
    kept = sorted(range(len(rows)), key=lambda i: (-scores[i], i))[: len(rows) - f]
    return scores, mean([rows[i] for i in kept])


def dnc(rows, f, c, draws):
    """Rejections by each of the ``draws`` of coordinates, and the mean of the rows never rejected (Shejwalkar 2021)."""
    n, dropped = len(rows), math.floor(round(c * f, 9))
    rejections = [0] * n
    for columns in draws:
        part = np.array(rows)[:, columns]
        part = part - part.mean(axis=0)
        scores = (part @ np.linalg.svd(part)[2][0]) ** 2
        for i in sorted(range(n), key=lambda i: (scores[i], i))[n - dropped :]:
            rejections[i] += 1
    kept = [i for i in range(n) if not rejections[i]]
    kept = kept or sorted(range(n), key=lambda i: (rejections[i], i))[: n - dropped]
    return rejections, mean([rows[i] for i in kept])
