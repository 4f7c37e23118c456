"""Quantity skew: clients differ in how much they hold, and everybody has the label distribution of the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedagg.data.partitions.contract import (
    Indices,
    Labels,
    by_class,
    checked,
    dirichlet,
    require_between,
    require_enough,
    require_integer,
    require_positive,
)


@dataclass(frozen=True)
class QuantityDirichlet:
    """Divide the samples in proportions drawn from a symmetric Dirichlet distribution, alike for all classes.

    Li et al., "Federated Learning on Non-IID Data Silos: An Experimental Study", ICDE 2022, section on quantity skew.

    Args:
        alpha: concentration. Small (0.1): a few clients hold nearly everything; large (100): nearly equal sizes.
        min_size: samples that every client gets first; the others are divided. 0 allows clients without any.

    Shapes: labels [M] -> ``num_clients`` index arrays.
    Bound: alpha > 0 and finite; 1 <= num_clients <= M; num_clients * min_size <= M. A client has less than 2 (1 + C m / M)
        samples more or less of a class of m than its part of it would be: 4 where classes are alike.
    Differs from the source: it draws again until every client has 10 samples; here nobody can have too few.
    """

    alpha: float = 0.5
    min_size: int = 1

    def __post_init__(self) -> None:
        require_positive(self, "alpha", ". Equal shares without any skew are IID()")
        require_integer(self, "min_size", 0)

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Indices:
        labels = checked(self, labels, num_clients, seed)
        require_enough(self, num_clients, self.min_size, len(labels))
        generator = np.random.default_rng(seed)
        return _divide(labels, dirichlet(self, self.alpha, num_clients, generator), self.min_size, generator)


@dataclass(frozen=True)
class QuantityLognormal:
    """Divide the samples in proportions drawn from a lognormal distribution, alike for all classes.

    Client i's part is proportional to exp(sigma z_i), z_i standard normal: most clients are small and a few are large, as in
    many natural populations.

    Args:
        sigma: spread. 0: equal sizes; 1: two thirds of all clients lie within a factor e of the median; 2: within e^2.
        min_size: samples that every client gets first; the others are divided. 0 allows clients without any.

    Shapes: labels [M] -> ``num_clients`` index arrays.
    Bound: 0 <= sigma <= 10; 1 <= num_clients <= M; num_clients * min_size <= M. Labels: see ``QuantityDirichlet``.
    """

    sigma: float = 1.0
    min_size: int = 1

    def __post_init__(self) -> None:
        require_between(self, "sigma", 0, 10)
        require_integer(self, "min_size", 0)

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Indices:
        labels = checked(self, labels, num_clients, seed)
        require_enough(self, num_clients, self.min_size, len(labels))
        generator = np.random.default_rng(seed)
        weights = np.exp(self.sigma * generator.standard_normal(num_clients))
        return _divide(labels, weights / weights.sum(), self.min_size, generator)


def _divide(
    labels: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], min_size: int, generator: np.random.Generator
) -> Indices:
    """Cut the samples, mixed so that every stretch of them has the labels of all, into parts of the given shares."""
    place = np.empty(len(labels))
    for rows in by_class(labels):  # the samples of a class lie evenly over [0, 1), each at random in its own interval
        place[generator.permutation(rows)] = (np.arange(len(rows)) + generator.random(len(rows))) / len(rows)
    mixed = np.argsort(place, kind="stable")
    free = len(labels) - min_size * len(shares)
    ends = (np.cumsum(shares) * free).astype(np.int64) + min_size * np.arange(1, len(shares) + 1)
    return [generator.permutation(part) for part in np.split(mixed, ends[:-1])]
