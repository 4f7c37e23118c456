"""Phocas: in every coordinate, average the values around the trimmed mean.

Xie, Koyejo and Gupta, "Phocas: dimensional Byzantine-resilient stochastic gradient descent", 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from strategies.rules._sorted_columns import mean_of_nearest, sorted_columns


@dataclass(frozen=True)
class Phocas(Rule):
    """Average, in each coordinate, the ``n - f`` values closest to the trimmed mean of that coordinate.

    With u_(1) <= ... <= u_(n) the sorted values of one coordinate, the trimmed mean is

        (u_(f+1) + ... + u_(n-f)) / (n - 2f).

    Args:
        f: Byzantine clients tolerated: values trimmed per side, then values left out in all. 0 gives the plain mean.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: n >= 2f + 1.
    Cost: time O(d n log n), memory one block of columns. Coordinates are independent: may be chunked.
    Ties: of two values equally far from the trimmed mean the smaller is kept, so the order of the rows never matters.
    Differs from the source: nothing but the tie rule, which it leaves open.

    Example:
        >>> updates = torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0], [1e9, -1e9]])
        >>> Phocas(f=1)(updates)
        tensor([1., 4.])
    """

    coordinatewise = True
    invariances = frozenset({"permutation", "translation", "scale"})

    f: int

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the mean around the trimmed mean [d] of ``updates`` [n, d]."""
        n, d = check_rows(self, updates)
        if not 0 <= 2 * self.f < n:
            raise ValueError(f"Phocas needs f >= 0 and n >= 2f + 1 (Xie et al. 2018); got n={n}, f={self.f}")
        result = torch.empty(d, dtype=updates.dtype, device=updates.device)
        for block, values in sorted_columns(self, updates):
            trimmed = values[:, self.f : n - self.f].mean(dim=1, dtype=torch.float64)
            result[block] = mean_of_nearest(values, n - self.f, trimmed)
        return result
