"""Coordinate-wise trimmed mean: forget the extremes of every coordinate, average the rest.

Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018, Definition 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from strategies.rules._sorted_columns import sorted_columns


@dataclass(frozen=True)
class TrimmedMean(Rule):
    """Average each coordinate after dropping its ``f`` smallest and its ``f`` largest values.

    With u_(1) <= ... <= u_(n) the sorted values of one coordinate, the result is

        (u_(f+1) + ... + u_(n-f)) / (n - 2f).

    Args:
        f: Byzantine clients tolerated. 0 gives the plain mean; more costs precision when the honest clients differ.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: n >= 2f + 1. Then every coordinate lies between two honest values, whatever f rows contain.
    Cost: time O(d n log n), memory one block of columns. Coordinates are independent: may be chunked.
    Differs from the source: it trims a fraction beta per side; here f is a count, so nothing is rounded.

    Example:
        >>> updates = torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0], [1e9, -1e9]])
        >>> TrimmedMean(f=1)(updates)
        tensor([1.5000, 3.5000])
    """

    coordinatewise = True
    invariances = frozenset({"permutation", "translation", "scale"})

    f: int

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the trimmed mean [d] of ``updates`` [n, d]."""
        n, d = check_rows(self, updates)
        if not 0 <= 2 * self.f < n:
            raise ValueError(f"TrimmedMean needs f >= 0 and n >= 2f + 1 (Yin et al. 2018); got n={n}, f={self.f}")
        result = torch.empty(d, dtype=updates.dtype, device=updates.device)
        for block, values in sorted_columns(self, updates):
            result[block] = values[:, self.f : n - self.f].mean(dim=1, dtype=torch.float64)
        return result
