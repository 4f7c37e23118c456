"""Label skew without draws of proportions: few classes a client, or samples sorted by label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedagg.data.partitions.contract import Indices, Labels, by_class, checked, pieces, require_between, require_integer
from fedagg.errors import ConfigError


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
        require_integer(self, "k", 1)

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Indices:
        labels = checked(self, labels, num_clients, seed)
        classes = by_class(labels)
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
            for client, piece in zip(clients, pieces(generator.permutation(rows), len(clients)), strict=True):
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
        require_integer(self, "per_client", 1)

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Indices:
        labels = checked(self, labels, num_clients, seed)
        count = num_clients * self.per_client
        if count > len(labels):
            raise ConfigError(
                f"{self} needs num_clients * per_client <= samples; got {num_clients} * {self.per_client} > {len(labels)}. "
                "Lower the number of clients or per_client"
            )
        shards = pieces(np.argsort(labels, kind="stable"), count)
        dealt = np.random.default_rng(seed).permutation(count).reshape(num_clients, self.per_client)
        return [np.concatenate([shards[shard] for shard in hand]) for hand in dealt]


@dataclass(frozen=True)
class GammaSimilarity:
    """Share a part of the samples out at random, and the rest sorted by label.

    Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020, section 7, and
    ``gamma_similarity_niid`` of byzfl. ``int(gamma * M)`` samples, drawn at random, are cut into one piece
    a client. The others are sorted by label, in the order of the data set within a class, and cut as well: client 0 gets the
    lowest labels.

    Args:
        gamma: share that is IID. 1: equal shares at random; 0: sorted by label, most clients with a class or two.

    Shapes: labels [M] -> ``num_clients`` index arrays, a client's random piece before its sorted one.
    Bound: 0 <= gamma <= 1; 1 <= num_clients <= M.
    Differs from byzfl: there the IID part is what comes first in the data set, which must then be shuffled; here it is
        drawn. Of the sorted pieces the last are the longer ones, there the first, so that sizes differ by one at most.

    Example:
        >>> GammaSimilarity(gamma=0.0)(np.array([2, 1, 0, 0, 1, 2]), 3, seed=0)
        [array([2, 3]), array([1, 4]), array([0, 5])]
    """

    gamma: float = 0.5

    def __post_init__(self) -> None:
        require_between(self, "gamma", 0, 1)

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Indices:
        labels = checked(self, labels, num_clients, seed)
        order = np.random.default_rng(seed).permutation(len(labels))
        count = int(self.gamma * len(labels))
        rest = np.sort(order[count:])
        rest = rest[np.argsort(labels[rest], kind="stable")]
        sorted_pieces = [piece[::-1] for piece in pieces(rest[::-1], num_clients)[::-1]]
        return [np.concatenate(both) for both in zip(pieces(order[:count], num_clients), sorted_pieces, strict=True)]
