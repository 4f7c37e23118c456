"""Views: a partition that does not divide; every client sees its own random sample of the same data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedagg.compact import CSR, Integers
from fedagg.data.partitions.contract import Labels, checked, require_integer
from fedagg.errors import ConfigError


@dataclass(frozen=True)
class Views:
    """Give every client its own random sample of the whole data; two clients may see the same row.

    For populations larger than any data set at hand: a million clients over 60,000 rows. Each client's rows are a uniform draw
    without replacement, independent of the labels and of other clients, in ascending order.

    Args:
        samples: rows that each client sees.

    Shapes: labels [M] -> ``num_clients`` times ``samples`` rows, as a ``CSR``.
    Bound: 1 <= samples <= M. Any number of clients.
    Cost: 4 bytes a sample, 8 a client; two to three times that while drawing.

    Example:
        >>> views = Views(samples=3)(np.zeros(5, int), 1000, seed=0)
        >>> len(views), len(set(views[0].tolist())), int(views.flat.max())
        (1000, 3, 4)
    """

    samples: int = 32

    def __post_init__(self) -> None:
        require_integer(self, "samples", 1)

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> CSR:
        total = len(checked(self, labels, num_clients, seed, disjoint=False))
        if self.samples > total:
            raise ConfigError(f"{self} needs samples <= rows of the data; got {self.samples} > {total}. Lower samples")
        generator = np.random.default_rng(seed)
        if 2 * self.samples <= total:
            rows = _distinct(generator, num_clients, self.samples, total)
        else:  # draw what a client does not see, the smaller part
            seen = np.ones((num_clients, total), dtype=bool)
            np.put_along_axis(seen, _distinct(generator, num_clients, total - self.samples, total), False, axis=1)
            rows = np.nonzero(seen)[1]
        return CSR(rows.reshape(-1), self.samples * np.arange(num_clients + 1))


def _distinct(generator: np.random.Generator, clients: int, count: int, total: int) -> Integers:
    """Return [clients, count] numbers below ``total``, ascending and distinct in each row; every such set is equally likely.

    Each row holds the first ``count`` distinct values of its own stream of uniform draws: repeated ones are drawn again.
    """
    kind = np.int32 if total < 2**31 else np.int64
    numbers = np.sort(generator.integers(total, size=(clients, count), dtype=kind), axis=1)
    pending = np.arange(clients)
    while len(pending):
        some = numbers[pending]
        repeated = np.zeros(some.shape, dtype=bool)
        repeated[:, 1:] = some[:, 1:] == some[:, :-1]
        some[repeated] = generator.integers(total, size=int(repeated.sum()), dtype=kind)
        some.sort(axis=1)
        numbers[pending] = some
        pending = pending[repeated.any(axis=1)]
    return numbers
