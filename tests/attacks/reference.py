"""The attacks written again from their papers' equations, in float64, one number at a time. Slow on purpose."""

import math


def mean(rows):
    return [math.fsum(column) / len(column) for column in zip(*rows, strict=True)]


def std(rows, ddof):
    result = []
    for column in zip(*rows, strict=True):
        center = math.fsum(column) / len(column)
        result.append(math.sqrt(math.fsum((x - center) ** 2 for x in column) / (len(column) - ddof)))
    return result


def sign_flip(rows, f, scale):
    return [[-scale * mu for mu in mean(rows)] for _ in range(f)]


def ipm(rows, f, epsilon):
    return [[-epsilon * mu for mu in mean(rows)] for _ in range(f)]


def normal_cdf(z):
    return (1 + math.erf(z / math.sqrt(2))) / 2


def alie_z(n, f, formula):
    """The largest z >= 0 with Phi(z) at most the share of clients that lie further in (Baruch et al. 2019), by bisection."""
    supporters = n // 2 + 1 - f
    share = {"paper": (n - f - supporters) / (n - f), "n": (n - supporters) / n}[formula]
    low, high = 0.0, 8.0
    if normal_cdf(low) >= share:
        return 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if normal_cdf(middle) < share else (low, middle)
    return low


def alie(rows, f, z=None, sign=1, formula="paper", ddof=1):
    z = alie_z(len(rows) + f, f, formula) if z is None else z
    return [[mu + sign * z * sigma for mu, sigma in zip(mean(rows), std(rows, ddof), strict=True)] for _ in range(f)]


def flip_labels(labels, num_classes, mapping):
    if mapping == "reverse":
        return [num_classes - 1 - label for label in labels]
    if mapping == "next":
        return [(label + 1) % num_classes for label in labels]
    a, b = mapping
    return [b if label == a else label for label in labels]
