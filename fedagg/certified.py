"""Ensembles for certified elections: learners that train apart, each on what a hash gives it, and always in the same way.

    >>> from functools import partial
    >>> from fedagg.certified import ByClient, Ensemble
    >>> from fedagg.data import IID, Population, digits
    >>> from fedagg.models import logistic_regression
    >>> population = Population.split(digits(), IID(), num_clients=40, seed=0)
    >>> ensemble = Ensemble(ByClient(population, learners=8), partial(logistic_regression, (1, 8, 8), 10))
    >>> x, y = population.test()
    >>> ensemble.logits(x).shape                                         # [B, k, C], what the elections count
    (359, 8, 10)

A certificate says that whoever changes r buckets changes no learner but those that read them. Three things make that true
here: the bucket of a client follows from its id alone, that of a sample from its content alone; what a learner draws follows
from its own number; and it trains on one thread, one client at a time, on examples whose order does not depend on others.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedagg import rng
from fedagg.clients import Clients, LocalSGD
from fedagg.clients.local import LocalTraining
from fedagg.data import Dataset, Population
from fedagg.errors import ConfigError
from fedagg.grid import LocalGrid
from fedagg.loop import run
from fedagg.models import build
from fedagg.params import Layout, ModelState
from fedagg.strategy import AnyStrategy, Strategy

ANSWERED_AT_ONCE = 2048  # test points

Integers = npt.NDArray[np.int64]


class Parts(ABC):
    """What each of k learners trains on; None is nothing.

    Args:
        learners: k.
        spread: [buckets, d], row b lists the learners that read bucket b; None gives learner b bucket b alone.

    Attributes:
        buckets: [items], the bucket of every client or sample.
    """

    buckets: Integers

    def __init__(self, learners: int, spread: npt.ArrayLike | None) -> None:
        if learners < 1:
            raise ConfigError(f"an ensemble needs learners >= 1; got {learners}")
        readers = np.arange(learners)[:, None] if spread is None else np.asarray(spread)
        if readers.ndim != 2 or readers.dtype.kind not in "iu" or not np.isin(readers, range(learners)).all():
            raise ConfigError(f"spread must be [buckets, d], rows of numbers 0 .. {learners - 1}; got {readers.tolist()}")
        self._learners, self._readers = learners, readers

    def __len__(self) -> int:
        return self._learners

    def __getitem__(self, learner: int) -> Population | None:
        if not 0 <= learner < len(self):
            raise IndexError(f"learners are 0 .. {len(self) - 1}; got {learner}")
        return self.holding(self.items(learner))

    def items(self, learner: int) -> Integers:
        """Return which clients or samples a learner trains on, ascending."""
        reads = (self._readers == learner).any(axis=1)
        return np.flatnonzero(reads[self.buckets])

    @abstractmethod
    def holding(self, items: Integers) -> Population | None:
        """Return the population of these clients or samples."""


class ByClient(Parts):
    """Give every learner the clients of its buckets: the radius then counts malicious clients.

    Args:
        population: the clients and their data.
        learners: k.
        spread: [buckets, d], row b lists the learners that read bucket b; None gives learner b bucket b alone.
        seed: decides, with its id, the bucket of a client.

    Attributes:
        buckets: [N], the bucket of every client.
    """

    def __init__(self, population: Population, learners: int, spread: npt.ArrayLike | None = None, seed: int = 0) -> None:
        super().__init__(learners, spread)
        self.population, self.buckets = population, buckets_of_clients(len(population), len(self._readers), seed)

    def holding(self, items: Integers) -> Population | None:
        whole, mine = self.population, set(items.tolist())
        held = [whole.indices[client] if client in mine else () for client in range(max(mine, default=-1) + 1)]
        if not any(map(len, held)):
            return None
        return Population(whole.dataset, held, whole.holdout, whole.seed, partition=whole.partition)


class BySample(Parts):
    """Give every learner the samples of its buckets: the radius then counts samples that are inserted or deleted.

    Changing what a sample shows is both, one each; changing its label is one, because the hash does not see it.

    Args:
        dataset: whose training set is shared out.
        learners: k.
        spread: [buckets, d], row b lists the learners that read bucket b; None gives learner b bucket b alone.
        seed: decides, with its content, the bucket of a sample.

    Attributes:
        buckets: [M], the bucket of every training sample.
    """

    def __init__(self, dataset: Dataset, learners: int, spread: npt.ArrayLike | None = None, seed: int = 0) -> None:
        super().__init__(learners, spread)
        self.dataset, self.buckets = dataset, buckets_of_samples(dataset.x_train, len(self._readers), seed)

    def holding(self, items: Integers) -> Population | None:
        if not len(items):
            return None
        content, labels = _content(self.dataset.x_train[items]), self.dataset.y_train[items].tolist()
        in_order = sorted(range(len(items)), key=lambda i: (content[i], labels[i]))
        return Population(self.dataset, [items[in_order]])


def buckets_of_clients(num_clients: int, buckets: int, seed: int = 0) -> Integers:
    """Return the bucket of every client, [num_clients]; it depends on the client's id and the seed alone."""
    return np.array([rng.derive(seed, "bucket", client) % buckets for client in range(num_clients)], dtype=np.int64)


def buckets_of_samples(x: npt.NDArray[Any], buckets: int, seed: int = 0) -> Integers:
    """Return the bucket of samples ``x`` [M, ...], [M]; that of a sample depends on its raw values and the seed alone."""
    key = rng.derive(seed, "bucket of content").to_bytes(8, "little")
    digests = (hashlib.blake2b(content, digest_size=8, key=key).digest() for content in _content(x))
    return np.array([int.from_bytes(digest, "little") % buckets for digest in digests], dtype=np.int64)


def _content(x: npt.NDArray[Any]) -> list[bytes]:
    """Return every sample as bytes that are the same on every machine."""
    return [sample.tobytes() for sample in x.astype(x.dtype.newbyteorder("<"), copy=False)]


def _mean(seed: int) -> AnyStrategy:
    return Strategy(seed=seed)


@dataclass(frozen=True)
class Ensemble:
    """k learners that share nothing but their architecture.

    A learner is a federation of its own: the clients of its part, a strategy, some rounds. Where a part is samples it has one
    client, and with one round of several epochs that is plain training. What it draws, its initial values first, depends on
    ``seed`` and its number, so any of them may be trained anywhere, in any order, with the same outcome to the bit. A learner
    without data stays as it was made.

    Args:
        parts: what each learner trains on: ``ByClient``, ``BySample``, or populations (None for nothing) of your own making.
        model: makes an untrained model; called without arguments.
        local: local training.
        rounds: of federated training.
        strategy: makes the strategy of a learner from its seed; by default the mean of the clients' updates.
        seed: of the seed tree. For the sum of several seeds (DPA*) add up the logits of several ensembles.

    Void: a certificate holds if nothing else is shared. Features that are scaled by the statistics of all data are
        (``breast_cancer``), and so are parts cut by a partition that looks at all data, unless the radius counts its clients.
    """

    parts: Parts | Sequence[Population | None]
    model: Callable[[], nn.Module]
    local: LocalTraining = field(default_factory=LocalSGD)
    rounds: int = 1
    strategy: Callable[[int], AnyStrategy] = _mean
    seed: int = 0

    def train(self, learner: int) -> nn.Module:
        """Return one learner, trained from the start.

        Args:
            learner: 0 .. k - 1.
        """
        seed = rng.derive(self.seed, "learner", learner)
        model, part = build(self.model, seed=seed), self.parts[learner]
        if part is not None:
            with _one_thread():
                clients = Clients(part, model, self.local, seed=seed, executor="one_at_a_time")
                strategy = self.strategy(seed)
                done = run(LocalGrid(clients, seed=seed), strategy, model, self.rounds, seed=seed, evaluate=lambda _: {})
            layout = Layout.of_model(model)
            state = layout.read(done.arrays)
            layout.scatter(ModelState(state.params, state.float_buffers, state.int_buffers), model)
        return model.eval()

    def logits(self, x: Tensor, learners: Sequence[int] | None = None) -> npt.NDArray[np.float32]:
        """Train learners one after another and return what they say of some test points.

        An answer that is not finite becomes zeros, so that whoever makes a learner diverge wins no more than that learner.

        Args:
            x: [B, ...] float32, as ``Population.test`` returns them.
            learners: which ones; None is all. Their columns are the same whichever others are asked.

        Shapes: x [B, ...] -> [B, len(learners), C].
        """
        asked = range(len(self.parts)) if learners is None else learners
        columns = []
        for learner in asked:
            model = self.train(learner)
            with _one_thread(), torch.inference_mode():
                answer = torch.cat([model(block) for block in torch.split(x, ANSWERED_AT_ONCE)])
                columns.append(answer.where(answer.isfinite().all(dim=1, keepdim=True), 0.0).numpy())
        return np.stack(columns, axis=1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread for a while: with more of them sums may be split differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
