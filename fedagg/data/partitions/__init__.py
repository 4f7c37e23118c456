"""Partitions: which client gets which training samples.

A partition is called as ``partition(labels [M], num_clients, seed)`` and returns one integer index array a client: a list of
arrays, or a ``fedagg.compact.CSR`` where there are too many clients for an object each. It draws from ``seed`` alone, so equal
arguments give equal bytes. Any callable of that form is a partition, a plain function too; ``contract.py`` says what else one
may have. Each one here uses every sample exactly once, except those that say so.

    IID                 equal shares at random
    Dirichlet           label skew and unequal sizes: every class is divided in random proportions
    ClientDirichlet     every client draws its own mixture of classes
    KClasses            every client holds exactly k classes
    Shards              sort by label, cut into pieces, deal the pieces out
    GammaSimilarity     a share at random, the rest sorted by label
    NIID1               Dirichlet, and nobody gets much more than an equal share
    NIID2               some clients with a fifth of the classes, some with all; leaves samples out
    QuantityDirichlet   unequal sizes, equal label distributions
    QuantityLognormal   the same, most clients small and a few large
    Natural             a client for each owner that the data set names; leaves out those not drawn
    LongTail            around another one: classes of unlike size; leaves samples out
    FeatureSkew         around another one: clients turn, brighten and blur what they see
    FlwrPartitioner     any partitioner of ``flwr_datasets``

``fedagg.data.Views`` is a partition that lets clients share samples.
"""

from __future__ import annotations

from fedagg.data.partitions.classes import GammaSimilarity, KClasses, Shards
from fedagg.data.partitions.contract import Indices, Labels, Partition
from fedagg.data.partitions.dirichlet import ClientDirichlet, Dirichlet, split_by_proportions
from fedagg.data.partitions.feature_skew import FeatureSkew
from fedagg.data.partitions.flwr import FlwrPartitioner
from fedagg.data.partitions.iid import IID
from fedagg.data.partitions.long_tail import LongTail
from fedagg.data.partitions.natural import Natural
from fedagg.data.partitions.niid import NIID1, NIID2, niid1, niid2
from fedagg.data.partitions.quantity import QuantityDirichlet, QuantityLognormal

__all__ = [
    "IID",
    "NIID1",
    "NIID2",
    "ClientDirichlet",
    "Dirichlet",
    "FeatureSkew",
    "FlwrPartitioner",
    "GammaSimilarity",
    "Indices",
    "KClasses",
    "Labels",
    "LongTail",
    "Natural",
    "Partition",
    "QuantityDirichlet",
    "QuantityLognormal",
    "Shards",
    "niid1",
    "niid2",
    "split_by_proportions",
]
