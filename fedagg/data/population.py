"""The population: which client holds which samples, and what of it the client trains on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedagg import rng
from fedagg.data.datasets import Dataset
from fedagg.data.partitions import Indices, Partition
from fedagg.errors import ConfigError


class Population:
    """Clients 0 .. N - 1 and their samples.

    Only indices are kept; a client's rows become floats when they are asked for, so a population costs 8 bytes a sample.

    Args:
        dataset: whose training set is shared out.
        indices: one array a client, rows of ``dataset.x_train``. Some may be empty. Two clients may hold the same row.
        holdout: share of every client's samples, rounded, that it does not train on and can be evaluated on. At least one
            sample stays for training. Which ones depends on ``(seed, client)`` alone.
        seed: of the seed tree.
        partition: what made the indices, for titles; None where they were made by hand.

    Raises:
        ConfigError: indices that are no rows of the training set, or twice with one client; ``holdout`` outside [0, 1);
            no client with a sample.

    Example:
        >>> from fedagg.data import Dirichlet, Population, digits
        >>> population = Population.split(digits(), Dirichlet(alpha=0.5), num_clients=10, seed=1)
        >>> x, y = population.train(3)
        >>> x.shape[1:], len(y) == population.num_examples[3]
        (torch.Size([1, 8, 8]), tensor(True))
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: Sequence[npt.ArrayLike],
        holdout: float = 0.0,
        seed: int = 0,
        *,
        partition: object = None,
    ) -> None:
        if not 0 <= holdout < 1:
            raise ConfigError(f"holdout must be at least 0 and less than 1; got {holdout}")
        self.dataset, self.holdout, self.seed, self.partition = dataset, holdout, seed, partition
        self.indices: Indices = [self._checked(client, rows) for client, rows in enumerate(indices)]
        if not any(len(rows) for rows in self.indices):
            raise ConfigError(f"a population needs a client with a sample; got {len(self.indices)} clients, all empty")
        self._train, self._validation = [], []
        for client, rows in enumerate(self.indices):
            held_out = self._held_out(client, len(rows))
            self._train.append(rows[~held_out])
            self._validation.append(rows[held_out])

    @classmethod
    def split(
        cls, dataset: Dataset, partition: Partition, num_clients: int, seed: int = 0, holdout: float = 0.0
    ) -> Population:
        """Share the training set of ``dataset`` out among ``num_clients`` clients.

        Args:
            dataset: what to share out.
            partition: how; one of ``fedagg.data.partitions`` or any callable like them. It is given ``seed`` itself.
            num_clients: N.
            seed: decides the partition and what is held out.
            holdout: see the class.

        Raises:
            ConfigError: what the partition raises; another number of clients than asked for; an empty client although the
                partition does not say ``min_size=0``.
        """
        indices = partition(dataset.y_train, num_clients, seed)
        if len(indices) != num_clients:
            raise ConfigError(f"{_name(partition)} must return {num_clients} index arrays, one a client; got {len(indices)}")
        empty = [client for client, rows in enumerate(indices) if len(rows) == 0]
        if empty and getattr(partition, "min_size", None) != 0:
            raise ConfigError(
                f"{_name(partition)} must give every client a sample; {len(empty)} of {num_clients} have none, the first is "
                f"client {empty[0]}. Lower the number of clients; empty clients are allowed where partition.min_size is 0"
            )
        return cls(dataset, indices, holdout, seed, partition=partition)

    def __len__(self) -> int:
        """N, how many clients there are, empty ones included."""
        return len(self.indices)

    def train(self, client_id: int) -> tuple[Tensor, Tensor]:
        """Return what a client trains on: float32 features [m, ...] and int64 classes [m]."""
        return self._rows(self._train, client_id)

    def validation(self, client_id: int) -> tuple[Tensor, Tensor]:
        """Return what a client holds out: float32 features [v, ...] and int64 classes [v]; v may be 0."""
        return self._rows(self._validation, client_id)

    def test(self) -> tuple[Tensor, Tensor]:
        """Return the server's test set: float32 features [T, ...] and int64 classes [T]. Made anew at every call."""
        return self.dataset.features(self.dataset.x_test), torch.tensor(self.dataset.y_test)

    @cached_property
    def sizes(self) -> Tensor:
        """[N] int64, samples each client holds, whether it trains on them or not."""
        return torch.tensor([len(rows) for rows in self.indices])

    @cached_property
    def num_examples(self) -> Tensor:
        """[N] int64, samples each client trains on."""
        return torch.tensor([len(rows) for rows in self._train])

    @cached_property
    def label_counts(self) -> Tensor:
        """[N, C] int64, samples of each class that each client trains on; rows add up to ``num_examples``."""
        counts = [np.bincount(self.dataset.y_train[rows], minlength=self.dataset.num_classes) for rows in self._train]
        return torch.from_numpy(np.stack(counts).astype(np.int64))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of every client's training and held-out indices in client order."""
        digest = hashlib.sha256()
        for train, validation in zip(self._train, self._validation, strict=True):
            digest.update(f"{len(train)} {len(validation)}\n".encode())
            digest.update(train.astype("<i8").tobytes() + validation.astype("<i8").tobytes())
        return digest.hexdigest()

    def summary(self) -> dict[str, int | float]:
        """Return the numbers one wants to see before a run; plain ints and floats."""
        sizes = np.array([len(rows) for rows in self.indices])
        classes = (self.label_counts > 0).sum(dim=1).numpy()
        return {
            "clients": len(self),
            "samples": int(sizes.sum()),
            "held_out": sum(map(len, self._validation)),
            "size_min": int(sizes.min()),
            "size_median": float(np.median(sizes)),
            "size_max": int(sizes.max()),
            "empty_clients": int((sizes == 0).sum()),
            "classes_median": float(np.median(classes[sizes > 0])),
        }

    def __str__(self) -> str:
        numbers = self.summary()
        sizes = f"{numbers['size_min']} to {numbers['size_max']} samples (median {numbers['size_median']:g})"
        if numbers["size_min"] == numbers["size_max"]:
            sizes = f"{numbers['size_min']} samples each"
        text = f"{len(self)} clients with {sizes} of {self.dataset.name}"
        return text + (f", {numbers['empty_clients']} of them empty" if numbers["empty_clients"] else "")

    def __repr__(self) -> str:
        made = f", {_name(self.partition)}" if self.partition is not None else ""
        return f"<Population of {len(self)} clients: {self.dataset.name}{made}, seed {self.seed}, holdout {self.holdout}>"

    def _checked(self, client: int, rows: npt.ArrayLike) -> npt.NDArray[np.int64]:
        array: npt.NDArray[Any] = np.asarray(rows)
        total = len(self.dataset.y_train)
        if array.size == 0:
            array = array.astype(np.int64).reshape(-1)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ConfigError(f"client {client} needs a list of row numbers; got {array.dtype} {list(array.shape)}")
        if array.size and not (array.min() >= 0 and array.max() < total):
            raise ConfigError(f"client {client} needs rows in 0 .. {total - 1}; got {array.min()} .. {array.max()}")
        if len(np.unique(array)) != len(array):
            raise ConfigError(f"client {client} needs every row once; got {len(array) - len(np.unique(array))} repeated")
        return array.astype(np.int64)

    def _held_out(self, client: int, size: int) -> npt.NDArray[np.bool_]:
        """Mark which of a client's samples it holds out."""
        mask = np.zeros(size, dtype=bool)
        count = min(int(self.holdout * size + 0.5), size - 1)
        if count > 0:
            mask[rng.numpy_generator(self.seed, "holdout", client).permutation(size)[:count]] = True
        return mask

    def _rows(self, part: Indices, client_id: int) -> tuple[Tensor, Tensor]:
        if not 0 <= client_id < len(self):
            raise IndexError(f"client ids are 0 .. {len(self) - 1}; got {client_id}")
        rows = part[client_id]
        return self.dataset.features(self.dataset.x_train[rows]), torch.from_numpy(self.dataset.y_train[rows])


def _name(partition: object) -> str:
    """Return what to call a partition: functions by their name, objects as they print."""
    return str(getattr(partition, "__name__", partition))
