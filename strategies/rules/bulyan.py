"""Bulyan: let Krum choose rows one by one, then average them around their median in every coordinate.

El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from strategies.rules._distances import checked_distances
from strategies.rules._krum_scores import least_rows
from strategies.rules._sorted_columns import mean_of_nearest, midpoint, sorted_columns


@dataclass(frozen=True)
class Bulyan(Rule):
    """Select ``n - 2f`` rows by Krum, then average, in each coordinate, their ``n - 4f`` values nearest to their median.

    Krum is asked again after each pick, about the rows that are left: with r rows left, row i scores the sum of
    ||u_i - u_j||^2 over the max(1, r - f - 2) rows j nearest to it. The last row left needs no score.

    Args:
        f: Byzantine clients tolerated. Each costs four clients' worth of values per coordinate.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: n >= 4f + 3.
    Cost: time O(n^2 d + n^3 log n), memory the distances [n, n] and one block of columns. Distances are computed once.
    Ties: of equal scores the lowest row is picked; of two values equally far from the median the smaller is kept. With one
        neighbour left the two rows of the nearest pair have equal scores, always: for f <= 2 the order of the rows matters.
    Differs from the source: nothing but the tie rules, which it leaves open.
    Diagnostics: ``last_info`` holds ``selected`` [n - 2f], in the order in which they were picked.

    Example:
        >>> updates = torch.tensor([[1, 0], [1.2, 0.1], [0.8, -0.2], [1.1, 0.3], [0.9, 0.05], [1.05, -0.1], [-8, 6]])
        >>> bulyan = Bulyan(f=1)
        >>> bulyan(updates)
        tensor([1.0500, 0.0000])
        >>> bulyan.last_info["selected"]
        tensor([0, 5, 1, 2, 3])
    """

    invariances = frozenset({"translation", "scale"})
    exempt = MappingProxyType({"modest": "from f = 3 on no two rows tie, and the order does not matter"})

    f: int

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the mean [d] of the selected rows around their median."""
        n, d = check_rows(self, updates)
        if self.f < 0 or n < 4 * self.f + 3:
            needs = "f >= 0 and n >= 4f + 3" if self.f < 0 else "n >= 4f + 3"
            raise ValueError(f"Bulyan needs {needs} (El Mhamdi et al. 2018); got n={n}, f={self.f}")
        selected = self._select(updates)
        self.last_info["selected"] = selected
        result = torch.empty(d, dtype=updates.dtype, device=updates.device)
        for block, values in sorted_columns(self, updates, selected):
            result[block] = mean_of_nearest(values, n - 4 * self.f, midpoint(values))
        return result

    def _select(self, updates: Tensor) -> Tensor:
        """Return the rows that repeated Krum picks, [n - 2f]."""
        distances, usable = checked_distances(self, updates)
        n = len(distances)
        if usable.sum() < n - self.f:
            raise ValueError(f"Bulyan found more than f={self.f} rows whose squared length overflows")
        distances = distances.cpu().fill_diagonal_(math.inf)
        left = usable.cpu().nonzero().flatten()
        picked: list[int] = []
        for r in range(n, 2 * self.f, -1):
            among = distances[left[:, None], left]
            nearest = among.sort(dim=1).values[:, : max(1, r - self.f - 2)]
            best = int(least_rows(self, nearest.sum(dim=1), 1)) if r > 1 else 0
            picked.append(int(left[best]))
            left = torch.cat([left[:best], left[best + 1 :]])
        return torch.tensor(picked, device=updates.device)
