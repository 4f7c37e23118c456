"""Label skew in proportions that are drawn at random: per class among clients, or per client among classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fedagg.data.partitions.contract import (
    Indices,
    Labels,
    by_class,
    checked,
    checked_labels,
    dirichlet,
    require_enough,
    require_integer,
    require_positive,
    too_small,
)
from fedagg.errors import ConfigError

DRAWS = 11


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
        require_positive(self, "alpha", ". Equal shares without any skew are IID()")
        require_integer(self, "min_size", 0)

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Indices:
        labels = checked(self, labels, num_clients, seed)
        require_enough(self, num_clients, self.min_size, len(labels))
        generator = np.random.default_rng(seed)
        classes = by_class(labels)
        smallest = 0
        for _ in range(DRAWS):
            shares = [dirichlet(self, self.alpha, num_clients, generator) for _ in classes]
            cuts = [(np.cumsum(p) * len(rows)).astype(np.int64)[:-1] for p, rows in zip(shares, classes, strict=True)]
            ends = [np.concatenate([[0], cut, [len(rows)]]) for cut, rows in zip(cuts, classes, strict=True)]
            smallest = max(smallest, least := int(np.sum([np.diff(end) for end in ends], axis=0).min()))
            if least >= self.min_size:
                break
        else:
            raise too_small(self, "alpha", num_clients, len(labels), DRAWS, smallest)
        shared = zip(*(np.split(rows, cut) for rows, cut in zip(classes, cuts, strict=True)), strict=True)
        parts = [np.concatenate(share) for share in shared]
        for part in parts:
            generator.shuffle(part)
        return parts


@dataclass(frozen=True)
class ClientDirichlet:
    """Draw what every client asks for, q ~ Dirichlet(alpha) over the classes, and divide each class as it is asked for.

    Wang & Ji, "A Lightweight Method for Tackling Unknown Participation Statistics in Federated Learning", ICLR 2024 (FedAU),
    as in their code: ``split_by_proportions`` with the clients' q. Where ``Dirichlet`` draws, for a class, how much of it
    goes where, here a client draws its own mixture, so sizes differ less.

    Args:
        alpha: concentration, 0.1 in the paper. Small: a client has few classes; large: all in equal shares.
        min_size: samples that every client must have; all is drawn again, 11 times in all, until it is so. 0 allows clients
            without any.

    Shapes: labels [M] -> ``num_clients`` index arrays, class after class, each in the order of the data set.
    Bound: alpha > 0 and finite; 1 <= num_clients <= M; num_clients * min_size <= M.
    Differs from the source: it takes what comes, empty clients included, and divides by 0 where nobody asks for a class;
        here too small a client, and a class nobody asks for, mean another draw.
    """

    alpha: float = 0.1
    min_size: int = 1

    def __post_init__(self) -> None:
        require_positive(self, "alpha", ". Equal shares without any skew are IID()")
        require_integer(self, "min_size", 0)

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Indices:
        labels = checked(self, labels, num_clients, seed)
        require_enough(self, num_clients, self.min_size, len(labels))
        generator = np.random.default_rng(seed)
        classes, places = np.unique(labels, return_inverse=True)
        smallest = 0
        for _ in range(DRAWS):
            asked = np.stack([dirichlet(self, self.alpha, len(classes), generator) for _ in range(num_clients)])
            if not asked.any(axis=0).all():
                continue
            parts = split_by_proportions(places, asked)
            smallest = max(smallest, least := min(map(len, parts)))
            if least >= self.min_size:
                return parts
        raise too_small(self, "alpha", num_clients, len(labels), DRAWS, smallest)


def split_by_proportions(labels: Labels, proportions: npt.ArrayLike | Tensor) -> Indices:
    """Divide every class among all clients in given proportions.

    The m samples of class c, in the order of the data set, are cut where the shares of the clients before add up to: client
    n's part ends at ``round(m (q_1c + ... + q_nc) / (q_1c + ... + q_Nc))``, halves to the even number.

    Args:
        labels: [M], classes 0 .. C - 1.
        proportions: [N, C], what each client asks of each class; only the ratios within a class matter.

    Returns:
        N index arrays, class after class. Every sample is in exactly one; some arrays may be empty.

    Raises:
        ConfigError: proportions that are negative, not finite or of another shape; a class that is there and nobody asks for.

    Example:
        >>> split_by_proportions(np.array([0, 0, 0, 0, 1, 1]), [[1, 0], [3, 2]])
        [array([0]), array([1, 2, 3, 4, 5])]
    """
    shares = np.asarray(proportions.cpu() if isinstance(proportions, Tensor) else proportions, dtype=np.float64)
    values = checked_labels("split_by_proportions", labels)
    if shares.ndim != 2 or not shares.size or not np.isfinite(shares).all() or (shares < 0).any():
        raise ConfigError(f"split_by_proportions needs proportions [N, C], finite and not negative; got {list(shares.shape)}")
    clients, classes = shares.shape
    if values.size and not 0 <= values.min() <= values.max() < classes:
        raise ConfigError(
            f"split_by_proportions needs a proportion for each label; got labels {values.min()} .. {values.max()} and "
            f"proportions of {classes} classes"
        )
    counts = np.bincount(values, minlength=classes)
    sums = np.cumsum(shares, axis=0)
    orphans = np.flatnonzero((counts > 0) & (sums[-1] == 0))
    if len(orphans):
        raise ConfigError(f"split_by_proportions needs a client that asks for class {orphans[0]}; all proportions of it are 0")
    ends = np.round(counts * sums / np.where(sums[-1] > 0, sums[-1], 1)).astype(np.int64)
    sizes = np.diff(ends, axis=0, prepend=0)  # [N, C]
    holder = np.concatenate([np.repeat(np.arange(clients), column) for column in sizes.T])
    rows = np.argsort(values, kind="stable")[np.argsort(holder, kind="stable")]
    return np.split(rows, np.cumsum(sizes.sum(axis=1))[:-1])
