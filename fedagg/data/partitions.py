"""Partitions: which client gets which training samples.

A partition is called as ``partition(labels [M], num_clients, seed)`` and returns one integer index array a client: a list of
arrays, or a ``fedagg.compact.CSR`` where there are too many clients for an object each. Each one here uses every sample
exactly once and draws from ``numpy.random.default_rng(seed)`` alone, so equal arguments give equal bytes. Any callable of that
form is a partition, a plain function too; ``Views`` is one that lets clients share samples.

    IID         equal shares at random
    Dirichlet   label skew and unequal sizes: every class is divided in random proportions
    KClasses    every client holds exactly k classes
    Shards      sort by label, cut into pieces, deal the pieces out
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fedagg.compact import Integers
from fedagg.errors import ConfigError

Indices = list[npt.NDArray[np.int64]]
Labels = npt.NDArray[Any] | Tensor

DIRICHLET_DRAWS = 11


class Partition(Protocol):
    """Anything that shares samples out by their labels."""

    def __call__(self, labels: Labels, num_clients: int, seed: int, /) -> Sequence[Integers]:
        """Return one integer index array a client, for labels [M]."""
        ...


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
        labels = _checked(self, labels, num_clients, seed)
        return _pieces(np.random.default_rng(seed).permutation(len(labels)), num_clients)


@dataclass(frozen=True)
class Dirichlet:
    """Divide every class among all clients in proportions drawn from a symmetric Dirichlet distribution.

    Hsu, Qi & Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019,
    gave the concentration its role; dividing each class, so that sizes vary too, is as in Yurochkin et al., "Bayesian
    Nonparametric Federated Learning of Neural Networks", ICML 2019.

    For each class in ascending order one vector p ~ Dirichlet(alpha, ..., alpha) is drawn; client i gets the samples of the
    class, in ascending order, between ``floor(m (p_1 + ... + p_(i-1)))`` and ``floor(m (p_1 + ... + p_i))`` of its m, the
    last client the rest. If a client has fewer than ``min_size`` samples all is drawn again, 11 times in all. At the end
    each client's indices are shuffled. The result is index for index that of ``flwr_datasets``'
    ``DirichletPartitioner(alpha=alpha, min_partition_size=min_size, self_balancing=False, seed=seed)``.

    Args:
        alpha: concentration. Small (0.1): a client has few classes and sizes differ widely; large (100): nearly IID.
        min_size: samples that every client must have. 0 allows clients without any; they take part in no round.

    Shapes: labels [M] -> ``num_clients`` index arrays.
    Bound: alpha > 0 and finite; 1 <= num_clients <= M; num_clients * min_size <= M.
    """

    alpha: float = 0.5
    min_size: int = 1

    def __post_init__(self) -> None:
        if not (_is_number(self.alpha) and self.alpha > 0 and math.isfinite(self.alpha)):
            raise ConfigError(
                f"Dirichlet needs a finite alpha > 0; got alpha={self.alpha}. Equal shares without any skew are IID()"
            )
        if not (_is_integer(self.min_size) and self.min_size >= 0):
            raise ConfigError(f"Dirichlet needs an integer min_size >= 0; got min_size={self.min_size}")

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Indices:
        labels = _checked(self, labels, num_clients, seed)
        if num_clients * self.min_size > len(labels):
            raise ConfigError(
                f"{self} needs num_clients * min_size <= samples; got {num_clients} * {self.min_size} > {len(labels)}. "
                "Lower the number of clients or min_size"
            )
        generator = np.random.default_rng(seed)
        classes = _by_class(labels)
        smallest = 0
        for _ in range(DIRICHLET_DRAWS):
            cuts = [self._cuts(len(rows), num_clients, generator) for rows in classes]
            ends = [np.concatenate([[0], cut, [len(rows)]]) for cut, rows in zip(cuts, classes, strict=True)]
            smallest = max(smallest, least := int(np.sum([np.diff(end) for end in ends], axis=0).min()))
            if least >= self.min_size:
                break
        else:
            raise ConfigError(
                f"{self} needs samples >= {self.min_size} on each of {num_clients} clients; in {DIRICHLET_DRAWS} draws "
                f"from {len(labels)} samples the smallest client never had more than {smallest}. Raise alpha, lower the "
                "number of clients or lower min_size; min_size=0 allows empty clients, which then take part in no round"
            )
        shares = zip(*(np.split(rows, cut) for rows, cut in zip(classes, cuts, strict=True)), strict=True)
        parts = [np.concatenate(share) for share in shares]
        for part in parts:
            generator.shuffle(part)
        return parts

    def _cuts(self, count: int, num_clients: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
        proportions = generator.dirichlet(np.full(num_clients, float(self.alpha)))
        if not abs(proportions.sum() - 1) < 1e-6:  # NaN, or all zero where alpha * num_clients overflows
            raise ConfigError(f"{self} is beyond what floating point can draw; take alpha between 1e-3 and 1e6")
        return (np.cumsum(proportions) * count).astype(np.int64)[:-1]


@dataclass(frozen=True)
class KClasses:
    """Give every client samples of exactly ``k`` classes, and every class to as equal a number of clients as possible.

    The "pathological" split of many papers, without a published procedure; this is ours. Clients, in random order, each take
    the k classes which the fewest clients have so far, ties broken at random. Then every class, shuffled, is cut into parts
    whose sizes differ by one at most, one for each client that took the class. So every sample is used, and clients per class
    are floor(N k / C) or one more.

    Args:
        k: classes a client holds. 1 is the hardest; the number of classes gives stratified equal shares.

    Shapes: labels [M] -> ``num_clients`` index arrays, shuffled.
    Bound: 1 <= k <= C; num_clients * k >= C, or a class would be left out; every class has at least as many samples as
        clients that take it.

    Example:
        >>> labels = np.arange(40) % 4
        >>> sorted(np.unique(labels[part]).size for part in KClasses(k=2)(labels, 6, seed=0))
        [2, 2, 2, 2, 2, 2]
    """

    k: int = 2

    def __post_init__(self) -> None:
        if not (_is_integer(self.k) and self.k >= 1):
            raise ConfigError(f"KClasses needs an integer k >= 1; got k={self.k}")

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Indices:
        labels = _checked(self, labels, num_clients, seed)
        classes = _by_class(labels)
        if self.k > len(classes):
            raise ConfigError(f"{self} needs k <= classes in the data; got k={self.k}, {len(classes)} classes. Lower k")
        if num_clients * self.k < len(classes):
            raise ConfigError(
                f"{self} needs num_clients * k >= classes, so that none is left out; got {num_clients} * {self.k} < "
                f"{len(classes)}. Raise k or the number of clients"
            )
        generator = np.random.default_rng(seed)
        holders: list[list[int]] = [[] for _ in classes]
        for client in generator.permutation(num_clients):
            order = generator.permutation(len(classes))
            held = np.array([len(holders[label]) for label in order])
            for label in order[np.argsort(held, kind="stable")[: self.k]]:
                holders[label].append(int(client))
        shares: list[Indices] = [[] for _ in range(num_clients)]
        for rows, clients in zip(classes, holders, strict=True):
            if len(rows) < len(clients):
                raise ConfigError(
                    f"{self} needs a sample for each client that holds a class; class {labels[rows[0]]} has {len(rows)} "
                    f"samples for {len(clients)} clients. Lower k or the number of clients"
                )
            for client, piece in zip(clients, _pieces(generator.permutation(rows), len(clients)), strict=True):
                shares[client].append(piece)
        return [generator.permutation(np.concatenate(share)) for share in shares]


@dataclass(frozen=True)
class Shards:
    """Sort the samples by label, cut them into shards, deal ``per_client`` random shards to every client.

    McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017, section 3: with
    100 clients and 2 shards each, 60,000 digits make 200 shards of 300, and most clients have two digits.

    Args:
        per_client: shards a client gets; few means few classes. A shard may cross from one class to the next.

    Shapes: labels [M] -> ``num_clients`` index arrays, shard after shard.
    Bound: num_clients * per_client <= M. Differs from the source: where the number of shards does not divide M, shard sizes
        differ by one, and no sample is lost.
    """

    per_client: int = 2

    def __post_init__(self) -> None:
        if not (_is_integer(self.per_client) and self.per_client >= 1):
            raise ConfigError(f"Shards needs an integer per_client >= 1; got per_client={self.per_client}")

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Indices:
        labels = _checked(self, labels, num_clients, seed)
        count = num_clients * self.per_client
        if count > len(labels):
            raise ConfigError(
                f"{self} needs num_clients * per_client <= samples; got {num_clients} * {self.per_client} > {len(labels)}. "
                "Lower the number of clients or per_client"
            )
        shards = _pieces(np.argsort(labels, kind="stable"), count)
        dealt = np.random.default_rng(seed).permutation(count).reshape(num_clients, self.per_client)
        return [np.concatenate([shards[shard] for shard in hand]) for hand in dealt]


def _checked(
    partition: object, labels: Labels, num_clients: int, seed: int, *, disjoint: bool = True
) -> npt.NDArray[np.int64]:
    """Return the labels as an int64 array, or raise a ConfigError that names what is wrong."""
    values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ConfigError(f"{partition} needs integer labels [M]; got {values.dtype} {list(values.shape)}")
    if not (_is_integer(num_clients) and num_clients >= 1):
        raise ConfigError(f"{partition} needs an integer number of clients >= 1; got {num_clients}")
    if disjoint and num_clients > len(values):
        raise ConfigError(
            f"{partition} needs at most as many clients as samples; got {num_clients} clients, {len(values)} samples. "
            "Lower the number of clients"
        )
    if not (_is_integer(seed) and seed >= 0):
        raise ConfigError(f"{partition} needs an integer seed >= 0; got {seed}")
    return values.astype(np.int64)


def _by_class(labels: npt.NDArray[np.int64]) -> Indices:
    """Return, for each class in ascending order, where it occurs in ascending order."""
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _pieces(rows: npt.NDArray[np.int64], count: int) -> Indices:
    """Cut into ``count`` pieces whose sizes differ by one at most, the longer ones first."""
    return list(np.array_split(rows, count))


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_integer(value) or isinstance(value, float | np.floating)
