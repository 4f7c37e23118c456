"""The two partitions of FedDisco: Ye et al., "Federated Learning with Discrepancy-Aware Collaboration", ICML 2023."""

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
    require_enough,
    require_integer,
    require_positive,
    too_small,
)
from fedagg.errors import ConfigError

DRAWS = 1000


@dataclass(frozen=True)
class NIID1:
    """Divide every class in Dirichlet proportions, and give no more to clients that have their share of all samples.

    As in FedDisco's code. For each class one vector p ~ Dirichlet(beta, ..., beta) is drawn; entries of clients that already
    hold M / N samples become 0 and the others are scaled to sum 1; the class is cut at their cumulative sums, truncated, the
    rest to the last client. All is drawn again until every client has ``min_size`` samples, 1000 times at most. Which samples
    of a class a client gets, and in what order it holds them, is random.

    Args:
        beta: concentration, 0.5 in most of the paper. Small: a client has few classes.
        min_size: samples that every client must have. 0 allows clients without any.

    Shapes: labels [M] -> ``num_clients`` index arrays.
    Bound: beta > 0 and finite; 1 <= num_clients <= M; num_clients * min_size <= M.
    Differs from the source: it draws without end; classes are shuffled once at the end, not at every draw, which gives the
        same distribution.
    """

    beta: float = 0.5
    min_size: int = 10

    def __post_init__(self) -> None:
        require_positive(self, "beta", ". Equal shares without any skew are IID()")
        require_integer(self, "min_size", 0)

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Indices:
        labels = checked(self, labels, num_clients, seed)
        require_enough(self, num_clients, self.min_size, len(labels))
        generator = np.random.default_rng(seed)
        classes = by_class(labels)
        smallest = 0
        for _ in range(DRAWS):
            cuts, sizes = self._draw([len(rows) for rows in classes], num_clients, generator)
            if sizes.sum() < len(labels):
                continue
            smallest = max(smallest, int(sizes.min()))
            if sizes.min() >= self.min_size:
                break
        else:
            raise too_small(self, "beta", num_clients, len(labels), DRAWS, smallest)
        divided = [np.split(generator.permutation(rows), cut) for rows, cut in zip(classes, cuts, strict=True)]
        return [generator.permutation(np.concatenate(share)) for share in zip(*divided, strict=True)]

    def _draw(
        self, counts: list[int], num_clients: int, generator: np.random.Generator
    ) -> tuple[Indices, npt.NDArray[np.int64]]:
        """Return where to cut each class, and the clients' sizes. Classes are missing where rounding left all shares 0."""
        sizes, cuts = np.zeros(num_clients, dtype=np.int64), []
        for count in counts:
            shares = dirichlet(self, self.beta, num_clients, generator) * (sizes * num_clients < sum(counts))
            if shares.sum() == 0:
                break
            cuts.append((np.cumsum(shares / shares.sum()) * count).astype(np.int64)[:-1])
            sizes += np.diff(cuts[-1], prepend=0, append=count)
        return cuts, sizes


@dataclass(frozen=True)
class NIID2:
    """Give some clients a fifth of the classes each, others all classes, and everybody equally many samples.

    As in FedDisco's code. With C classes and N = biased + unbiased clients let s = floor(M / C / N). Biased client i gets 5 s
    consecutive samples of each of C / 5 classes, those from ``C / 5 * i`` on (modulo C), so that five clients have all
    classes between them; unbiased client j gets s samples of every class. Clients hold C s samples each and share none; what
    is left belongs to nobody. Only the order in which a client holds its samples depends on the seed.

    Args:
        biased: clients with a fifth of the classes; a multiple of 5. They come first.
        unbiased: clients with all classes.

    Shapes: labels [M] -> biased + unbiased index arrays.
    Bound: num_clients = biased + unbiased; C a multiple of 5; every class has floor(M / C) samples or more, as in a balanced
        data set; s >= 1.

    Example:
        >>> parts = NIID2(biased=5, unbiased=1)(np.arange(600) % 10, 6, seed=0)
        >>> [np.unique(part % 10, return_counts=True) for part in parts[1:2]]
        [(array([2, 3]), array([50, 50]))]
    """

    biased: int = 5
    unbiased: int = 1

    def __post_init__(self) -> None:
        require_integer(self, "biased", 0)
        require_integer(self, "unbiased", 0)
        if self.biased % 5:
            raise ConfigError(f"NIID2 needs biased clients in a multiple of 5; got biased={self.biased}")

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Indices:
        labels = checked(self, labels, num_clients, seed)
        if num_clients != self.biased + self.unbiased:
            raise ConfigError(
                f"{self} needs num_clients = biased + unbiased; got {num_clients} clients. Set population to "
                f"{self.biased + self.unbiased}, or biased and unbiased to add up"
            )
        classes = by_class(labels)
        size = len(labels) // len(classes)
        few = min(classes, key=len)
        if len(classes) % 5:
            raise ConfigError(f"{self} needs a multiple of 5 classes; the data have {len(classes)}")
        if len(few) < size:
            raise ConfigError(
                f"{self} needs balanced classes, {size} samples or more of each; class {labels[few[0]]} has {len(few)}"
            )
        share = size // num_clients
        if share == 0:
            raise ConfigError(
                f"{self} needs a sample of each class a client; got {num_clients} clients, {size} samples a class"
            )
        generator, fifth, parts = np.random.default_rng(seed), len(classes) // 5, []
        for i in range(self.biased):
            start = 5 * share * (i // 5)
            own = [(fifth * i + k) % len(classes) for k in range(fifth)]
            parts.append(np.concatenate([classes[label][start : start + 5 * share] for label in own]))
        for j in range(self.unbiased):
            start = share * (self.biased + j)
            parts.append(np.concatenate([rows[start : start + share] for rows in classes]))
        return [generator.permutation(part) for part in parts]


def niid1(labels: Labels, num_clients: int, beta: float = 0.5, min_size: int = 10, seed: int = 0) -> Indices:
    """Return what ``NIID1(beta, min_size)`` gives ``num_clients`` clients."""
    return NIID1(beta, min_size)(labels, num_clients, seed)


def niid2(labels: Labels, biased: int = 5, unbiased: int = 1, seed: int = 0) -> Indices:
    """Return what ``NIID2(biased, unbiased)`` gives its clients, the biased ones first."""
    return NIID2(biased, unbiased)(labels, biased + unbiased, seed)
