"""MeaMed: in every coordinate, average the values around the median.

Xie, Koyejo and Gupta, "Generalized Byzantine-tolerant SGD", 2018 (arXiv 1802.10116), mean around median.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from strategies.rules._sorted_columns import mean_of_nearest, midpoint, sorted_columns


@dataclass(frozen=True)
class MeaMed(Rule):
    """Average, in each coordinate, the ``n - f`` values closest to the median of that coordinate.

    Args:
        f: Byzantine clients tolerated, and values left out per coordinate. 0 gives the plain mean. Unlike a trimmed mean it
            leaves out f values in all, on whichever side of the median they are.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: n >= 2f + 1.
    Cost: time O(d n log n), memory one block of columns. Coordinates are independent: may be chunked.
    Ties: of two values equally far from the median the smaller is kept, so the order of the rows never matters.
    Differs from the source: for even n the median is half the sum of the two middle values.

    Example:
        >>> updates = torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0], [1e9, -1e9]])
        >>> MeaMed(f=1)(updates)
        tensor([1., 4.])
    """

    coordinatewise = True
    invariances = frozenset({"permutation", "translation", "scale"})

    f: int

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the mean around the median [d] of ``updates`` [n, d]."""
        n, d = check_rows(self, updates)
        if not 0 <= 2 * self.f < n:
            raise ValueError(f"MeaMed needs f >= 0 and n >= 2f + 1 (Xie et al. 2018); got n={n}, f={self.f}")
        result = torch.empty(d, dtype=updates.dtype, device=updates.device)
        for block, values in sorted_columns(self, updates):
            result[block] = mean_of_nearest(values, n - self.f, midpoint(values))
        return result
