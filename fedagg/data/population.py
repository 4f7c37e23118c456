"""The population: which client holds which samples, and what of it the client trains on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedagg import rng
from fedagg.compact import CSR, Ids, Integers
from fedagg.data.datasets import Dataset
from fedagg.data.partitions.contract import Partition, reads
from fedagg.errors import ConfigError


class Population:
    """Clients 0 .. N - 1 and their samples.

    Only row numbers are kept, 4 bytes a sample and 8 bytes a client (8 and 8 for data sets of 2^31 rows or more). What follows
    from them (sizes, label counts, which samples are held out) is computed when it is asked for and not kept.

    Args:
        dataset: whose training set is shared out.
        indices: one array a client, rows of ``dataset.x_train``; a ``CSR`` is taken as it is. Some may be empty. Two clients
            may hold the same row.
        holdout: share of every client's samples, rounded, that it does not train on and can be evaluated on. At least one
            sample stays for training. Which ones depends on ``(seed, client)`` alone.
        seed: of the seed tree.
        partition: what made the indices, for titles; None where they were made by hand. If it has a ``transform``, that is
            how clients see their samples; the server's test set stays as it is.
        trusted: rows of ``dataset.x_train`` that the server holds itself, beside what clients hold.

    Attributes:
        indices: the samples of every client, held out or not: a sequence of N read-only arrays.
        trusted: the rows the server holds, ascending; none by default.

    Raises:
        ConfigError: indices that are no rows of the training set, or twice with one client; ``holdout`` outside [0, 1);
            no client with a sample; a ``transform`` that does not fit the data.

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
        trusted: npt.ArrayLike = (),
    ) -> None:
        if not 0 <= holdout < 1:
            raise ConfigError(f"holdout must be at least 0 and less than 1; got {holdout}")
        self.dataset, self.holdout, self.seed, self.partition = dataset, holdout, seed, partition
        self.indices = _checked(CSR.of(indices), len(dataset.y_train))
        self.trusted = np.sort(np.asarray(trusted, dtype=np.int64))
        if self.transformed:
            self.train(self.holders[0])  # which raises where the transform does not fit the data

    @classmethod
    def split(
        cls,
        dataset: Dataset,
        partition: Partition,
        num_clients: int,
        seed: int = 0,
        holdout: float = 0.0,
        *,
        trusted: int = 0,
    ) -> Population:
        """Share the training set of ``dataset`` out among ``num_clients`` clients.

        Args:
            dataset: what to share out.
            partition: how; one of ``fedagg.data.partitions`` or any callable like them. It is given the labels, or the array
                of the data set that its attribute ``reads`` names, and ``seed`` itself.
            num_clients: N.
            seed: decides the partition and what is held out.
            holdout: see the class.
            trusted: how many samples the server keeps for itself, drawn before the others are shared out.

        Raises:
            ConfigError: what the partition raises; another number of clients than asked for; an empty client although the
                partition does not say ``min_size=0``; not a sample left to share out; a data set without the array that the
                partition reads.
        """
        total = len(dataset.y_train)
        if not 0 <= trusted < total:
            raise ConfigError(f"trusted must be at least 0 and less than the {total} training samples; got {trusted}")
        own = rng.numpy_generator(seed, "trusted").permutation(total)[:trusted]
        rest = np.delete(np.arange(total), own)
        by = getattr(dataset, reads(partition), None)
        if by is None:
            raise ConfigError(
                f"{_name(partition)} needs a data set with {reads(partition)}; {dataset.name} has none. Choose another "
                "data set or another partition"
            )
        indices = CSR.of(partition(by[rest] if trusted else by, num_clients, seed))
        if len(indices) != num_clients:
            raise ConfigError(f"{_name(partition)} must return {num_clients} index arrays, one a client; got {len(indices)}")
        empty = np.flatnonzero(indices.sizes == 0)
        if len(empty) and getattr(partition, "min_size", None) != 0:
            raise ConfigError(
                f"{_name(partition)} must give every client a sample; {len(empty)} of {num_clients} have none, the first is "
                f"client {empty[0]}. Lower the number of clients; empty clients are allowed where partition.min_size is 0"
            )
        if trusted:
            indices = CSR(rest[indices.flat], indices.offsets)
        return cls(dataset, indices, holdout, seed, partition=partition, trusted=own)

    def __len__(self) -> int:
        """N, how many clients there are, empty ones included."""
        return len(self.indices)

    @cached_property
    def holders(self) -> Sequence[int]:
        """Ids of the clients that hold data, ascending; all that can take part in a round."""
        holds = self.indices.sizes > 0
        return range(len(self)) if holds.all() else Ids(np.flatnonzero(holds))

    def rows(self, client_id: int) -> Integers:
        """Return which rows of ``dataset.x_train`` a client trains on, [m] integers, to be read only."""
        mine = self._held_by(client_id)
        return mine[~self._held_out(client_id, client_id + 1)] if self.holdout else mine

    def train(self, client_id: int, chosen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what a client trains on: float32 features [m, ...] and int64 classes [m]; or the ``chosen`` ones of the m."""
        return self._examples(client_id, held_out=False, chosen=chosen)

    def validation(self, client_id: int) -> tuple[Tensor, Tensor]:
        """Return what a client holds out: float32 features [v, ...] and int64 classes [v]; v may be 0."""
        return self._examples(client_id, held_out=True)

    @property
    def transformed(self) -> bool:
        """Whether clients see their samples otherwise than the data set has them."""
        return hasattr(self.partition, "transform")

    def test(self) -> tuple[Tensor, Tensor]:
        """Return the server's test set: float32 features [T, ...] and int64 classes [T]. Made anew at every call."""
        return self.dataset.features(self.dataset.x_test), torch.tensor(self.dataset.y_test)

    @property
    def sizes(self) -> Tensor:
        """[N] int64, samples each client holds, whether it trains on them or not. Made anew at every call."""
        return torch.from_numpy(self.indices.sizes)

    @property
    def num_examples(self) -> Tensor:
        """[N] int64, samples each client trains on. Made anew at every call."""
        sizes = self.indices.sizes
        return torch.from_numpy(sizes - self._held_out_counts(sizes))

    @property
    def label_counts(self) -> Tensor:
        """[N, C] int64, samples of each class that each client trains on; rows add up to ``num_examples``. Counted anew at
        every call."""
        classes = self.dataset.num_classes
        counts = np.empty((len(self), classes), dtype=np.int64)
        for first, last in self.indices.blocks():
            rows, clients = self.indices.block(first, last)
            trains = ~self._held_out(first, last)
            cells = clients[trains] * classes + self.dataset.y_train[rows[trains]]
            counts[first:last] = np.bincount(cells, minlength=(last - first) * classes).reshape(-1, classes)
        return torch.from_numpy(counts)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of every client's training and held-out indices in client order."""
        digest = hashlib.sha256()
        for first, last in self.indices.blocks():
            rows, clients = self.indices.block(first, last)
            order = np.lexsort((self._held_out(first, last), clients))  # training rows first, each kind as it stands
            content = rows[order].astype("<i8").tobytes()
            sizes = self.indices.sizes[first:last]
            held_out, ends = self._held_out_counts(sizes), 8 * np.cumsum(sizes)
            for size, held, end in zip(sizes.tolist(), held_out.tolist(), ends.tolist(), strict=True):
                digest.update(b"%d %d\n" % (size - held, held) + content[end - 8 * size : end])
        return digest.hexdigest()

    def summary(self) -> dict[str, int | float]:
        """Return the numbers one wants to see before a run; plain ints and floats."""
        sizes = self.indices.sizes
        classes = (self.label_counts > 0).sum(dim=1).numpy()
        return {
            "clients": len(self),
            "samples": int(sizes.sum()),
            "held_out": int(self._held_out_counts(sizes).sum()),
            "size_min": int(sizes.min()),
            "size_median": float(np.median(sizes)),
            "size_max": int(sizes.max()),
            "empty_clients": int((sizes == 0).sum()),
            "classes_median": float(np.median(classes[sizes > 0])),
        }

    def __str__(self) -> str:
        sizes = self.indices.sizes
        least, most, empty = int(sizes.min()), int(sizes.max()), int((sizes == 0).sum())
        each = f"{least} to {most} samples (median {np.median(sizes):g})" if least < most else f"{least} samples each"
        return f"{len(self)} clients with {each} of {self.dataset.name}" + (f", {empty} of them empty" if empty else "")

    def __repr__(self) -> str:
        made = f", {_name(self.partition)}" if self.partition is not None else ""
        return f"<Population of {len(self)} clients: {self.dataset.name}{made}, seed {self.seed}, holdout {self.holdout}>"

    def _held_by(self, client_id: int) -> Integers:
        if not 0 <= client_id < len(self):
            raise IndexError(f"client ids are 0 .. {len(self) - 1}; got {client_id}")
        return self.indices[client_id]

    def _held_out_counts(self, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return how many samples clients of these sizes hold out."""
        return np.clip((self.holdout * sizes + 0.5).astype(np.int64), 0, np.maximum(sizes - 1, 0))

    def _held_out(self, first: int, last: int) -> npt.NDArray[np.bool_]:
        """Mark what the clients ``first`` .. ``last - 1`` hold out, among all their samples one after another."""
        ends = self.indices.offsets[first : last + 1] - self.indices.offsets[first]
        mask, sizes = np.zeros(ends[-1], dtype=bool), np.diff(ends)
        counts = self._held_out_counts(sizes)
        for i in np.flatnonzero(counts).tolist():
            drawn = rng.numpy_generator(self.seed, "holdout", first + i).permutation(sizes[i])[: counts[i]]
            mask[ends[i] + drawn] = True
        return mask

    def _examples(self, client_id: int, held_out: bool, chosen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows, dataset = self._held_by(client_id), self.dataset
        places = np.flatnonzero(self._held_out(client_id, client_id + 1) == held_out)
        if chosen is not None:
            places = places[chosen.numpy()]
        y = torch.from_numpy(dataset.y_train[rows[places]])
        transform = getattr(self.partition, "transform", None)
        if transform is None:
            return dataset.features(dataset.x_train[rows[places]]), y
        x = transform(dataset.features(dataset.x_train[rows]), dataset, client_id, self.seed)  # noise depends on the place
        return x[places], y


def _checked(indices: CSR, total: int) -> CSR:
    """Return indices of a data set of ``total`` rows in their smallest type, or say which client's are impossible."""
    for first, last in indices.blocks():
        rows, clients = indices.block(first, last)
        outside = clients[(rows < 0) | (rows >= total)]
        if len(outside):
            client = first + int(outside[0])
            mine = indices[client]
            raise ConfigError(f"client {client} needs rows in 0 .. {total - 1}; got {mine.min()} .. {mine.max()}")
        cells = np.sort(clients * total + rows.astype(np.int64, copy=False))
        repeated = cells[1:][cells[1:] == cells[:-1]]
        if len(repeated):
            client = int(repeated[0]) // total
            times = int((repeated // total == client).sum())
            raise ConfigError(f"client {first + client} needs every row once; got {times} repeated")
    if not len(indices.flat):
        raise ConfigError(f"a population needs a client with a sample; got {len(indices)} clients, all empty")
    return CSR(indices.flat.astype(np.int32 if total < 2**31 else np.int64, copy=False), indices.offsets)


def _name(partition: object) -> str:
    """Return what to call a partition: functions by their name, objects as they print."""
    return str(getattr(partition, "__name__", partition))
