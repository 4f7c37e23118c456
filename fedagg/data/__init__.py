"""Data: what is learned from, and which client holds what of it.

    >>> from fedagg.data import Dirichlet, Population, digits
    >>> dataset = digits()                                               # or fashion_mnist(), breast_cancer(), your Dataset
    >>> population = Population.split(dataset, Dirichlet(alpha=0.5), num_clients=20, seed=0)
    >>> x, y = population.train(7)                                       # float32 [m, 1, 8, 8] and int64 [m], client 7's own
    >>> population.label_counts.shape                                    # [N, C]
    torch.Size([20, 10])

Symbols: M training samples, T test samples, C classes, N clients. Three pieces, each of which can be replaced:

    Dataset      arrays in their own small types; ``features`` turns rows into floats when they are needed
    a partition  ``(labels [M], num_clients, seed) -> N index arrays``; ``IID``, ``Dirichlet``, ``Natural``, and more in
                 ``fedagg.data.partitions``, or a function of yours
    Population   a data set and N index arrays: what clients train on, hold out, and are measured by

``label_picture(population, path)`` draws who holds what. Nothing here downloads anything but ``hub(download=True)``, and
nothing touches a global random generator.
"""

from __future__ import annotations

from fedagg.data.datasets import Dataset, breast_cancer, digits
from fedagg.data.fashion import fashion_mnist
from fedagg.data.from_hub import hub
from fedagg.data.mlbench import letter, satellite, shuttle, vowel
from fedagg.data.mnist import mnist_5k
from fedagg.data.partitions import (
    IID,
    NIID1,
    NIID2,
    ClientDirichlet,
    Dirichlet,
    FeatureSkew,
    FlwrPartitioner,
    GammaSimilarity,
    KClasses,
    LongTail,
    Natural,
    Partition,
    QuantityDirichlet,
    QuantityLognormal,
    Shards,
)
from fedagg.data.picture import label_picture
from fedagg.data.plays import shakespeare
from fedagg.data.population import Population
from fedagg.data.texts import newsgroups, reuters_r8, reuters_r52
from fedagg.data.views import Views
from fedagg.data.watch import watch_activity

__all__ = [
    "IID",
    "NIID1",
    "NIID2",
    "ClientDirichlet",
    "Dataset",
    "Dirichlet",
    "FeatureSkew",
    "FlwrPartitioner",
    "GammaSimilarity",
    "KClasses",
    "LongTail",
    "Natural",
    "Partition",
    "Population",
    "QuantityDirichlet",
    "QuantityLognormal",
    "Shards",
    "Views",
    "breast_cancer",
    "digits",
    "fashion_mnist",
    "hub",
    "label_picture",
    "letter",
    "mnist_5k",
    "newsgroups",
    "reuters_r8",
    "reuters_r52",
    "satellite",
    "shakespeare",
    "shuttle",
    "vowel",
    "watch_activity",
]
