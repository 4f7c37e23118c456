"""Splitting, subspace and Jacobian rules, written again from their equations, in float64. Slow on purpose."""

import itertools

import numpy as np

from .reference import distance, least, mean


def gas(rows, f, rule, groups):
    """Scores, and the mean of the n - f rows nearest to what ``rule`` made of their groups of columns (Liu et al. 2023)."""
    scores = [0.0] * len(rows)
    for columns in groups:
        parts = [[row[c] for c in columns] for row in rows]
        aggregate = rule(parts)
        scores = [score + distance(part, aggregate) for score, part in zip(scores, parts, strict=True)]
    return scores, mean([rows[i] for i in least(scores, len(rows) - f)])


def flag(rows, r, lam, iters, first):
    """Objectives and result of the passes of Almasi et al. 2024, on the columns themselves; ``first`` is Y [d, r] or "svd"."""
    x = np.array(rows, dtype=np.float64)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    n = len(x)
    y = np.linalg.svd(x.T)[0][:, :r] if isinstance(first, str) else first

    def weight(column):
        return (abs(1 - np.sum((y.T @ column) ** 2)) + 1e-7) ** -0.25

    def objective():
        return sum(np.sqrt(max(0.0, 1 - np.sum((y.T @ row) ** 2))) for row in x)

    objectives = [objective()]
    for _ in range(iters):
        columns = [row * weight(row) for row in x]
        for i, j in itertools.permutations(range(n), 2) if lam > 0 else ():
            difference = x[i] - x[j]
            columns.append(difference * weight(difference) * lam / (n * (n - 1)))
        old, y = y, np.linalg.svd(np.array(columns).T)[0][:, :r]
        objectives.append(objective())
        if objectives[-1] >= objectives[-2]:
            y = old
            break
    return objectives, y @ (y.T @ x.sum(axis=0)) / r


def upgrad_weights(rows, pref=None, norm_eps=0.0, reg_eps=1e-4):
    """The sum over i of the least v^T K v with v >= pref_i e_i, each found by trying every set of free coordinates."""
    x = np.array(rows, dtype=np.float64)
    n = len(x)
    products = x @ x.T
    trace = np.trace(products)
    k = (products / trace if trace > norm_eps else 0 * products) + reg_eps * np.eye(n)
    total = np.zeros(n)
    for i, share in enumerate([1 / n] * n if pref is None else pref):
        bound = np.zeros(n)
        bound[i] = share
        best = None
        for free in itertools.chain.from_iterable(itertools.combinations(range(n), m) for m in range(n + 1)):
            v, free = bound.copy(), list(free)
            fixed = [j for j in range(n) if j not in free]
            if free:
                v[free] = np.linalg.solve(k[np.ix_(free, free)], -k[np.ix_(free, fixed)] @ bound[fixed])
            if (v >= bound - 1e-12).all() and (best is None or v @ k @ v < best @ k @ best):
                best = v
        total += best
    return total
