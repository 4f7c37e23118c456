"""NNM: nearest-neighbour mixing, replace every client by the average of its neighbourhood.

Allouah, Farhadkhani, Guerraoui, Gupta, Pinot and Stephan, "Fixing by Mixing: A Recipe for Optimal Byzantine ML under
Heterogeneity", AISTATS 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg import PreAggregator
from fedagg.contracts import check_rows
from fedagg.linalg import weighted_sums
from strategies.rules._distances import checked_distances


@dataclass(frozen=True)
class NNM(PreAggregator):
    """Replace row i by the mean of the ``n - f`` rows nearest to it, itself included.

    Honest rows come closer to each other, so the rule that follows has less to tell apart.

    Args:
        f: Byzantine clients tolerated. 0 makes every row the mean; more mixes less.

    Shapes: updates [n, d] -> [n, d], in the same order.
    Bound: n >= 2f + 1.
    Cost: time O(n^2 d), memory the result [n, d], the distances [n, n] and one block of columns.
    Ties: the row itself comes first, then of equal distances the lower row.
    Differs from the source: nothing but the tie rule, which it leaves open.
    Diagnostics: ``last_info`` holds ``selected`` [n, n - f], the neighbours of each row, nearest first.

    Example:
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]])
        >>> NNM(f=1)(updates)[3:]
        tensor([[ 1.6250,  1.6250],
                [ 3.8750, -1.3750]])
    """

    f: int

    def __call__(self, updates: Tensor) -> Tensor:
        """Return the mixed rows [n, d]."""
        n, _ = check_rows(self, updates)
        if not 0 <= 2 * self.f < n:
            raise ValueError(f"NNM needs f >= 0 and n >= 2f + 1 (Allouah et al. 2023); got n={n}, f={self.f}")
        distances, usable = checked_distances(self, updates)
        if usable.sum() < n:
            rows = (~usable).nonzero().flatten().tolist()
            raise ValueError(f"NNM needs rows whose squared length is finite; it overflows for rows {rows}")
        nearest = distances.fill_diagonal_(-1.0).sort(dim=1, stable=True).indices[:, : n - self.f]
        self.last_info["selected"] = nearest
        mixing = torch.zeros(n, n, dtype=torch.float64, device=updates.device)
        return weighted_sums(updates, mixing.scatter_(1, nearest, 1.0 / (n - self.f)))
