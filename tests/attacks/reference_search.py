"""The attacks that search, written again from their definitions, in plain Python. Slow on purpose; roots by bisection."""

import math

from .reference import alie_z, mean, std


def squared_distance(a, b):
    return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def direction(rows, dev, ddof):
    mu = mean(rows)
    if dev == "std":
        return std(rows, ddof)
    if dev == "sign":
        return [float((x > 0) - (x < 0)) for x in mu]
    length = math.sqrt(math.fsum(x * x for x in mu))
    return [x / length if length else 0.0 for x in mu]


def shifted(rows, dev, ddof, gamma):
    return [mu - gamma * step for mu, step in zip(mean(rows), direction(rows, dev, ddof), strict=True)]


def min_max_room(rows, candidate):
    """How much further away the candidate may go: not below 0 while it is feasible."""
    widest = max(squared_distance(a, b) for a in rows for b in rows)
    return math.sqrt(widest) - math.sqrt(max(squared_distance(candidate, row) for row in rows))


def min_sum_room(rows, candidate, bound):
    sums = [math.fsum(squared_distance(a, b) for b in rows) for a in rows]
    return {"max": max, "min": min}[bound](sums) - math.fsum(squared_distance(candidate, row) for row in rows)


def largest_gamma(room, dev):
    """The largest gamma with room(gamma) >= 0, which holds up to it and never after it."""
    if not any(dev):
        return 0.0
    low, high = 0.0, 1.0
    while room(high) >= 0:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if room(middle) >= 0 else (low, middle)
    return low


def published_gamma(feasible):
    """The loop of the notebooks, in their words: lamda, lamda_fail, lamda_succ."""
    lamda, lamda_fail, lamda_succ = 10.0, 10.0, 0.0
    while abs(lamda_succ - lamda) > 1e-5:
        if feasible(lamda):
            lamda_succ = lamda
            lamda = lamda + lamda_fail / 2
        else:
            lamda = lamda - lamda_fail / 2
        lamda_fail = lamda_fail / 2
    return lamda_succ


def fang_interval(column, b, up=None):
    """The least and the largest value that may be sent for one coordinate; ``up``: as if the mean had this sign."""
    low, high = min(column), max(column)
    if math.fsum(column) >= 0 if up is None else up:
        ends = (low / b, low) if low > 0 else (b * low, low)
    else:
        ends = (high, b * high) if high > 0 else (high, high / b)
    return min(ends), max(ends)


def krum(rows, f):
    """The index that Krum picks: the first with the least sum of squared distances to its n - f - 2 nearest others."""
    n = len(rows)
    scores = []
    for i in range(n):
        others = sorted(squared_distance(rows[i], rows[j]) for j in range(n) if j != i)
        scores.append(math.fsum(others[: n - f - 2]))
    return scores.index(min(scores))


def fang_krum_start(rows, f):
    h, d = len(rows), len(rows[0])
    nearest = []
    for i in range(h):
        others = sorted(math.sqrt(squared_distance(rows[i], rows[j])) for j in range(h) if j != i)
        nearest.append(math.fsum(others[: h - 2 - f]))
    longest = max(math.sqrt(math.fsum(x * x for x in row)) for row in rows)
    return min(nearest) / ((h - f - 1) * math.sqrt(d)) + longest / math.sqrt(d)


def fang_krum(rows, f, min_lambda=1e-5):
    """Return lambda, and whether Krum picks a row that is sent with it."""
    signs = direction(rows, "sign", 0)
    size = fang_krum_start(rows, f)
    while True:
        picked = krum([*rows, *([[-size * s for s in signs]] * f)], f) >= len(rows)
        if picked or size <= min_lambda:
            return size, picked
        size /= 2


def byzfl_search(strength, evaluations=20, start=0.0, step=10.0):
    """An expansion, then a contraction, as separate loops."""
    best_t, best = start, strength(start)
    evaluations -= 1
    while evaluations > 0:
        tried = strength(best_t + step)
        evaluations -= 1
        if tried <= best:
            step *= 0.8
            break
        best_t, best = best_t + step, tried
        step *= 2
    while evaluations > 0:
        tried = strength(best_t + step)
        evaluations -= 1
        if tried > best:
            best_t, best = best_t + step, tried
        step *= 0.8
    return best_t


def rop(rows, f, last=None, z=None, lam=0.9, pi=1.0, angle=270.0):
    """One row. Written with explicit projections; needs entries that are not all equal in the reference."""
    mu = mean(rows)
    d = len(mu)
    z = alie_z(len(rows) + f, f, "paper") if z is None else z
    m = [0.0] * d if last is None else last
    u = mu if last is None else [lam * a + (1 - lam) * b for a, b in zip(m, mu, strict=True)]
    onto = math.fsum(u) / math.fsum(x * x for x in u)
    q = [1 - onto * x for x in u]
    unit_q = [x / math.sqrt(math.fsum(y * y for y in q)) for x in q]
    unit_u = [x / math.sqrt(math.fsum(y * y for y in u)) for x in u]
    turned = [
        math.sin(math.radians(angle)) * a + math.cos(math.radians(angle)) * b for a, b in zip(unit_q, unit_u, strict=True)
    ]
    length = math.sqrt(math.fsum(x * x for x in turned))
    return [pi * a + (1 - pi) * b + z * p / length for a, b, p in zip(m, mu, turned, strict=True)]


def mimic(rounds, z, warmup):
    """The client copied in each round; ``rounds`` are lists of (client id, row)."""
    m, victim, copied = None, None, []
    for t, clients in enumerate(rounds):
        if t < warmup:
            average = mean([row for _, row in clients])
            m = average if m is None else [t / (1 + t) * a + b / (1 + t) for a, b in zip(m, average, strict=True)]
            centred = [[x - a for x, a in zip(row, m, strict=True)] for _, row in clients]
            along = [math.fsum(x * y for x, y in zip(row, z, strict=True)) for row in centred]
            moved = [math.fsum(p * row[j] for p, row in zip(along, centred, strict=True)) for j in range(len(z))]
            length = math.sqrt(math.fsum(x * x for x in moved))
            z = [x / length for x in moved] if length else z
        projections = {client: math.fsum(x * y for x, y in zip(row, z, strict=True)) for client, row in clients}
        furthest = max(projections, key=projections.__getitem__)
        if t < warmup:
            victim = furthest
        copied.append(victim if victim in projections else furthest)
    return copied


def smallest(reference, kept):
    """The coordinates of the ``kept`` smallest magnitudes, the lower one first among equals."""
    order = sorted(range(len(reference)), key=lambda j: (abs(reference[j]), j))
    return [j in order[:kept] for j in range(len(reference))]
