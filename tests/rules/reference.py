"""The rules written again from their papers' equations, in float64, one number at a time. Slow on purpose."""

import math


def mean(rows, weights=None):
    """sum_i w_i x_i (McMahan et al. 2017); 1/n each where no weights are given."""
    n = len(rows)
    weights = [1 / n] * n if weights is None else weights
    return [math.fsum(w * x for w, x in zip(weights, column, strict=True)) for column in zip(*rows, strict=True)]


def median(rows, even="midpoint"):
    """The middle value of each coordinate (Yin et al. 2018, Definition 1)."""
    result = []
    for column in zip(*rows, strict=True):
        ranked, half = sorted(column), len(column) // 2
        if len(column) % 2:
            result.append(ranked[half])
        elif even == "lower":
            result.append(ranked[half - 1])
        else:
            result.append((ranked[half - 1] + ranked[half]) / 2)
    return result


def trimmed_mean(rows, f):
    """The mean of each coordinate without its f largest and f smallest values (Yin et al. 2018, Definition 2)."""
    result = []
    for column in zip(*rows, strict=True):
        kept = list(column)
        for _ in range(f):
            kept.remove(max(kept))
            kept.remove(min(kept))
        result.append(math.fsum(kept) / len(kept))
    return result


def distance(a, b):
    return math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def squared_distance(a, b):
    return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def krum_scores(rows, f, neighbours="paper", power=2):
    """s_i, the sum over the n - f - 2 closest other vectors (Blanchard et al. 2017, Section 4), and its known variants."""
    n = len(rows)
    count = {"paper": n - f - 2, "byzfl": n - f - 1}[neighbours]
    length = {1: distance, 2: squared_distance, 4: lambda a, b: squared_distance(a, b) ** 2}[power]
    scores = []
    for i in range(n):
        others = sorted(length(rows[i], rows[j]) for j in range(n) if j != i)
        scores.append(math.fsum(others[:count]))
    return scores


def least(scores, m):
    """The indices of the m least scores, best first; equal scores by index."""
    return [i for _, i in sorted((score, i) for i, score in enumerate(scores))][:m]


def krum(rows, f, neighbours="paper", power=2):
    return rows[least(krum_scores(rows, f, neighbours, power), 1)[0]]


def multi_krum(rows, f, m=None, neighbours="paper", power=2):
    picked = least(krum_scores(rows, f, neighbours, power), len(rows) - f if m is None else m)
    return mean([rows[i] for i in picked])
