"""The formulas of the weightings, written down once more in plain Python, without a thought for speed or rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence


def feddisco(
    sizes: Sequence[float],
    labels: Sequence[Sequence[float]],
    a: float,
    b: float,
    metric: str,
    target: Sequence[float],
    normalize: bool,
) -> list[float]:
    goal = [share / sum(target) for share in target]
    distances = []
    for counts in labels:
        own = [count / sum(counts) for count in counts]
        pairs = list(zip(own, goal, strict=True))
        if metric == "kl":
            distances.append(sum(p * math.log(p / t) for p, t in pairs if p > 0))
        elif metric == "l1":
            distances.append(sum(abs(p - t) for p, t in pairs))
        elif metric == "l2":
            distances.append(math.sqrt(sum((p - t) ** 2 for p, t in pairs)))
        else:
            distances.append(1 - sum(p * t for p, t in pairs) / math.hypot(*own) / math.hypot(*goal))
    if normalize and sum(distances):
        distances = [distance / sum(distances) for distance in distances]
    values = [max(m / sum(sizes) - a * d + b, 0) for m, d in zip(sizes, distances, strict=True)]
    return [value / sum(values) for value in values]


def q_fedavg(rows: Sequence[Sequence[float]], losses: Sequence[float], q: float, lr: float) -> list[float]:
    """Return the step: w <- w - sum D_i / sum h_i, with D_i = F_i^q L (w - y_i)."""
    big_l = 1 / lr
    gradients = [[-big_l * change for change in row] for row in rows]
    directions = [[loss**q * g for g in gradient] for loss, gradient in zip(losses, gradients, strict=True)]
    h = [
        q * loss ** (q - 1) * sum(g * g for g in gradient) + big_l * loss**q
        for loss, gradient in zip(losses, gradients, strict=True)
    ]
    return [-sum(column) / sum(h) for column in zip(*directions, strict=True)]


def capped(weights: Sequence[float], cap: float) -> list[float]:
    """Return shares of the weights, of which none exceeds the cap: cut the largest, share the rest out anew, and so on."""
    shares, cut = [weight / sum(weights) for weight in weights], set()
    while max(shares) > cap * (1 + 1e-12):
        cut.add(max(range(len(shares)), key=shares.__getitem__))
        rest = sum(weight for i, weight in enumerate(weights) if i not in cut)
        left = 1 - cap * len(cut)
        shares = [cap if i in cut else weight / rest * left for i, weight in enumerate(weights)]
    return shares
