"""Sums and distances over the rows of ``updates [n, d]``, without a float64 copy of the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

COLUMNS = 1 << 13  # a column block of this width keeps the float64 working copy in the cache
PANEL = 32  # so many rows are added up in their own precision before the sum goes on in float64


def weighted_sum(updates: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``sum_i w_i u_i``, of at most 32 rows at a time in their own precision, and of those partial sums in float64.

    The error is then that of a sum of 32 terms, however many rows there are, at the price of reading the rows once.

    Args:
        updates: [n, d].
        weights: [n], applied as they are; None means 1/n each.

    Returns:
        [d], dtype and device of ``updates``.
    """
    n, d = updates.shape
    if n == 0:
        raise ValueError("a weighted sum needs n >= 1 rows; got n=0")
    if weights is None:
        coefficients = torch.full((n,), 1.0 / n, dtype=updates.dtype, device=updates.device)
    elif weights.shape == (n,):
        coefficients = weights.to(updates.device, updates.dtype)
    else:
        raise ValueError(f"weights must have shape [n={n}]; got {list(weights.shape)}")
    if n <= PANEL:
        return coefficients @ updates
    total = torch.zeros(d, dtype=torch.float64, device=updates.device)
    for start in range(0, n, PANEL):
        panel = slice(start, start + PANEL)
        total += coefficients[panel] @ updates[panel]
    return total.to(updates.dtype)


def squared_distances(updates: Tensor) -> Tensor:
    """Return the squared Euclidean distances between rows, as if computed in float64.

    The Gram matrix of the rows minus the shortest row is fast and, for updates of similar size, exact enough. Two close rows
    far away from the rest (colluders at 1e12, say) would cancel; such pairs are computed again from their difference.

    Args:
        updates: [n, d], finite.

    Returns:
        [n, n] float64, symmetric, zero diagonal, never negative.
    """
    n, d = updates.shape
    if n == 0:
        return torch.zeros(0, 0, dtype=torch.float64, device=updates.device)
    norms = torch.stack([torch.linalg.vector_norm(row, dtype=torch.float64) for row in updates])
    center = updates[int(norms.argmin())].double()
    gram = torch.zeros(n, n, dtype=torch.float64, device=updates.device)
    for start in range(0, d, COLUMNS):
        block = slice(start, start + COLUMNS)
        rows = updates[:, block].double() - center[block]
        gram += rows @ rows.T
    squares = gram.diagonal()
    total = squares[:, None] + squares[None, :]
    distances = total - gram - gram.T
    cancelled = torch.triu(distances < 1e-8 * total, diagonal=1)  # not rows equal to the shortest one
    for i, j in cancelled.nonzero().tolist():
        distances[i, j] = distances[j, i] = (updates[i].double() - updates[j].double()).square().sum()
    return distances.clamp_(min=0.0).fill_diagonal_(0.0)
