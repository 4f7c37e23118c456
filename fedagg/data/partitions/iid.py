"""Equal shares at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedagg.data.partitions.contract import Indices, Labels, checked, pieces


@dataclass(frozen=True)
class IID:
    """Shuffle all samples and cut them into parts whose sizes differ by one at most.

    Shapes: labels [M] -> ``num_clients`` index arrays.
    Bound: 1 <= num_clients <= M.

    Example:
        >>> [len(part) for part in IID()(np.zeros(10, int), 4, seed=0)]
        [3, 3, 2, 2]
    """

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Indices:
        labels = checked(self, labels, num_clients, seed)
        return pieces(np.random.default_rng(seed).permutation(len(labels)), num_clients)
