"""The clients that nature made: one for each person, device or place that the samples come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedagg.compact import CSR
from fedagg.data.partitions.contract import Labels, checked, require_integer
from fedagg.errors import ConfigError


@dataclass(frozen=True)
class Natural:
    """Make a client of an owner's samples, for some of the owners that have enough.

    ``num_clients`` owners are drawn with the seed out of those with ``min_samples`` samples or more. Clients stand in
    ascending order of their owners, each with all samples of its owner in the order of the data set. The samples of other
    owners belong to nobody. With as many clients as owners the seed has no effect.

    Args:
        min_samples: samples that an owner must have.

    Shapes: owners [M], which is ``Dataset.owners`` -> ``num_clients`` index arrays, as a ``CSR``.
    Bound: 1 <= num_clients <= owners with ``min_samples`` samples.

    Example:
        >>> owners = np.array([7, 7, 3, 7, 3, 5])
        >>> [rows.tolist() for rows in Natural(min_samples=2)(owners, 2, seed=0)]
        [[2, 4], [0, 1, 3]]
    """

    reads: ClassVar[str] = "owners"

    min_samples: int = 1

    def __post_init__(self) -> None:
        require_integer(self, "min_samples", 1)

    def __call__(self, owners: Labels, num_clients: int, seed: int) -> CSR:
        owners = checked(self, owners, num_clients, seed, disjoint=False)
        _, place, sizes = np.unique(owners, return_inverse=True, return_counts=True)
        enough = np.flatnonzero(sizes >= self.min_samples)
        if num_clients > len(enough):
            raise ConfigError(
                f"{self} needs at most as many clients as owners with samples >= {self.min_samples}; got {num_clients} "
                f"clients, {len(enough)} owners. Lower the number of clients to {len(enough)}"
                + (" or lower min_samples" if self.min_samples > 1 else "")
            )
        drawn = np.sort(np.random.default_rng(seed).choice(enough, num_clients, replace=False))
        rows = np.argsort(place, kind="stable")
        chosen = np.zeros(len(sizes), dtype=bool)
        chosen[drawn] = True
        return CSR(rows[np.repeat(chosen, sizes)], np.concatenate([[0], np.cumsum(sizes[drawn])]))
