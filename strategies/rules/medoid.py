"""Medoid: believe the client that is closest to all others.

Kaufman and Rousseeuw, "Clustering by means of medoids", 1987.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from strategies.rules._distances import checked_distances
from strategies.rules._krum_scores import equal_weights, least_rows


@dataclass(frozen=True)
class Medoid(Rule):
    """Return the row with the least sum of distances to all rows:

        s_i = sum_j ||u_i - u_j||, not squared.

    It is the geometric median restricted to what somebody sent.

    Shapes: updates [n, d] -> delta [d], one of the rows. Weights are the clients' own claims, so they are not used.
    Bound: n >= 1. While Byzantine rows are fewer than half the result stays near the honest rows.
    Cost: time O(n^2 d), memory the distances [n, n] and one block of columns.
    Ties: of equal sums the lowest row wins. With n = 2 there is always a tie.
    Differs from the source: rows so long that their squares overflow do not take part.
    Diagnostics: ``last_info`` holds ``scores`` [n], the sums, ``selected`` [1] and ``client_weights`` [n].

    Example:
        >>> import torch
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]])
        >>> Medoid()(updates)
        tensor([1.5000, 1.5000])
    """

    invariances = frozenset({"permutation", "translation", "scale", "orthogonal"})

    def client_weights(self, updates: Tensor) -> Tensor:
        """Return [n]: 1 for the row with the least sum of distances, 0 for the others."""
        n, _ = check_rows(self, updates)
        if n == 0:
            raise ValueError("Medoid needs n >= 1; got n=0")
        distances, usable = checked_distances(self, updates)
        scores = distances.sqrt().masked_fill(~usable, 0.0).sum(dim=1).masked_fill(~usable, math.inf)
        selected = least_rows(self, scores, 1)
        self.last_info.update(scores=scores, selected=selected)
        return equal_weights(updates, selected)
