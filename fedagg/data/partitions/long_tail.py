"""Global imbalance: classes of unlike size, whatever the partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedagg import rng
from fedagg.compact import CSR, Integers
from fedagg.data.partitions.contract import Labels, Partition, by_class, checked, is_number, reads
from fedagg.data.partitions.iid import IID
from fedagg.errors import ConfigError


@dataclass(frozen=True)
class LongTail:
    """Leave out more of each class than of the class before, and share out what is left.

    Of class k, 0 .. C - 1 in ascending order, ``int(M / C * ratio^(-k / (C - 1)))`` samples are kept, drawn with the seed, or
    all if it has no more. So in a balanced data set the first class is whole, and the last has a ``ratio``-th of it. The rest
    belongs to nobody; the test set stays as it is.

    As in the code of Ye et al., "Federated Learning with Discrepancy-Aware Collaboration", ICML 2023.

    Args:
        base: the partition that shares out what is left; None: equal shares at random.
        ratio: size of the first class over size of the last. 1 keeps a balanced data set whole.

    Shapes: labels [M] -> ``num_clients`` index arrays, of rows of the whole data set.
    Bound: ratio >= 1; something is left of every class; what ``base`` needs of the samples that are left.
    Differs from the source: it has the number of clients where the number of classes belongs (10 is its default for both), and
        its NIID-1 compares sizes with those of the whole data set.

    Example:
        >>> parts = LongTail(ratio=8)(np.repeat([0, 1, 2, 3], 64), 1, seed=0)
        >>> (np.concatenate(parts) // 64).tolist().count(0), (np.concatenate(parts) // 64).tolist().count(3)
        (64, 8)
    """

    base: Partition | None = None
    ratio: float = 10.0

    def __post_init__(self) -> None:
        if not (is_number(self.ratio) and 1 <= self.ratio < float("inf")):
            raise ConfigError(f"LongTail needs a finite ratio >= 1; got ratio={self.ratio}")
        if self.base is not None and reads(self.base) != "y_train":
            raise ConfigError(f"LongTail needs a base that shares out by labels; {self.base} does so by {reads(self.base)}")
        if hasattr(self.base, "transform"):
            raise ConfigError("LongTail cannot change features; put FeatureSkew around LongTail, not inside")

    @property
    def min_size(self) -> int | None:
        """That of the base."""
        return getattr(self.base, "min_size", None)

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Sequence[Integers]:
        labels = checked(self, labels, num_clients, seed)
        classes = by_class(labels)
        draw = rng.numpy_generator(seed, "long tail")
        kept = np.zeros(len(labels), dtype=bool)
        for k, rows in enumerate(classes):
            count = int(len(labels) / len(classes) * self.ratio ** (-k / max(len(classes) - 1, 1)))
            if count == 0:
                raise ConfigError(
                    f"{self} leaves nothing of class {labels[rows[0]]}; the data have {len(labels)} samples. Lower ratio"
                )
            kept[draw.permutation(rows)[:count]] = True
        left = np.flatnonzero(kept)
        parts = CSR.of((self.base or IID())(labels[left], num_clients, seed))
        return list(CSR(left[parts.flat], parts.offsets))
