import hashlib
import re

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits

from fedagg.data.partitions import (
    IID,
    NIID1,
    ClientDirichlet,
    Dirichlet,
    FeatureSkew,
    GammaSimilarity,
    KClasses,
    QuantityDirichlet,
    QuantityLognormal,
    Shards,
)
from fedagg.errors import ConfigError

DIGITS = load_digits().target
BALANCED = np.random.default_rng(5).permutation(np.arange(2000) % 10)
UNEVEN = np.repeat([2, 3, 5, 9], [400, 90, 300, 111])  # gaps between the labels, classes of unlike size, sorted

EVERY = [
    IID(),
    Dirichlet(),
    Dirichlet(0.1, 0),
    Dirichlet(100.0, 10),
    KClasses(1),
    KClasses(2),
    KClasses(3),
    Shards(1),
    Shards(4),
    ClientDirichlet(),
    GammaSimilarity(0.3),
    NIID1(min_size=1),
    QuantityDirichlet(),
    QuantityLognormal(2.0),
    FeatureSkew(Dirichlet(), rotation=(0, 90)),
]


def each(*partitions):
    return pytest.mark.parametrize("partition", partitions, ids=str)


def counts_of(labels, parts):
    classes = np.unique(labels)
    return np.array([[int((labels[part] == label).sum()) for label in classes] for part in parts])


def binomial_range(n, p, alarm):
    """Where a Binomial(n, p) count lies but for a probability of at most ``alarm``."""
    return stats.binom.ppf(alarm / 2, n, p), stats.binom.isf(alarm / 2, n, p)


# What holds for every partition


@each(*EVERY)
@pytest.mark.parametrize("labels", [BALANCED, UNEVEN, DIGITS], ids=["balanced", "uneven", "digits"])
@pytest.mark.parametrize("num_clients", [10, 13, 30])
def test_every_sample_is_used_exactly_once(partition, labels, num_clients):
    parts = partition(labels, num_clients, 0)
    assert len(parts) == num_clients
    assert all(part.dtype == np.int64 and part.ndim == 1 for part in parts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))


@each(*EVERY)
def test_the_seed_alone_decides(partition):
    def bytes_of(seed, labels=DIGITS):
        return [part.tobytes() for part in partition(labels, 20, seed)]

    before = np.random.get_state()[1].tobytes(), torch.get_rng_state()
    first = bytes_of(3)
    assert first == bytes_of(3)
    assert first == bytes_of(np.int64(3)) == bytes_of(3, torch.from_numpy(DIGITS)) == bytes_of(3, DIGITS.astype(np.uint8))
    assert first != bytes_of(4)
    assert before[0] == np.random.get_state()[1].tobytes()
    assert torch.equal(before[1], torch.get_rng_state())


@each(*EVERY)
def test_inputs_stay_as_they_are(partition):
    labels = DIGITS.copy()
    labels.flags.writeable = False
    partition(labels, 20, 0)
    np.testing.assert_array_equal(labels, DIGITS)


@each(*EVERY)
def test_repr_can_be_pasted_back(partition):
    assert eval(repr(partition)) == partition
    assert str(partition) == repr(partition)
    assert hash(partition) == hash(eval(repr(partition)))


def test_repr_names_its_settings():
    assert str(Dirichlet()) == "Dirichlet(alpha=0.5, min_size=1)"
    assert str(IID()) == "IID()"
    assert str(KClasses()) == "KClasses(k=2)"
    assert str(Shards()) == "Shards(per_client=2)"


@each(*EVERY)
@pytest.mark.parametrize(
    ("labels", "num_clients", "seed", "says"),
    [
        (np.arange(12) % 4, 13, 0, "13 clients, 12 samples"),
        (BALANCED, 0, 0, "number of clients >= 1; got 0"),
        (BALANCED, 2.0, 0, "number of clients >= 1; got 2.0"),
        (BALANCED, True, 0, "number of clients >= 1; got True"),
        (BALANCED, 10, -1, "seed >= 0; got -1"),
        (BALANCED, 10, None, "seed >= 0; got None"),
        (BALANCED.astype(float), 10, 0, "integer labels"),
        (BALANCED[:, None], 10, 0, "integer labels"),
        (np.array([], dtype=int), 1, 0, "1 clients, 0 samples"),
    ],
)
def test_impossible_calls_say_what_is_wrong(partition, labels, num_clients, seed, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        partition(labels, num_clients, seed)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Dirichlet(alpha=0), "alpha > 0; got alpha=0"),
        (lambda: Dirichlet(alpha=-1.0), "alpha > 0; got alpha=-1.0"),
        (lambda: Dirichlet(alpha=float("nan")), "alpha=nan"),
        (lambda: Dirichlet(alpha=float("inf")), r"IID\(\)"),
        (lambda: Dirichlet(alpha="small"), "alpha=small"),
        (lambda: Dirichlet(min_size=-1), "min_size=-1"),
        (lambda: Dirichlet(min_size=1.5), "min_size=1.5"),
        (lambda: KClasses(k=0), "k >= 1; got k=0"),
        (lambda: Shards(per_client=0), "per_client >= 1; got per_client=0"),
    ],
)
def test_impossible_settings_are_refused_when_they_are_made(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


# IID


@pytest.mark.parametrize(("samples", "clients"), [(100, 10), (101, 10), (109, 10), (7, 7), (1797, 20)])
def test_iid_sizes_differ_by_one_at_most(samples, clients):
    sizes = [len(part) for part in IID()(np.zeros(samples, int), clients, 0)]
    assert sorted(sizes, reverse=True) == sizes
    assert sizes[0] - sizes[-1] == (1 if samples % clients else 0)


def test_iid_labels_are_a_draw_without_replacement():
    """20 clients of 100 from 2000 samples, 200 a class; 200 counts, each Hypergeometric(2000, 200, 100).

    Seeds 0 .. 4, each count with false-alarm rate 1e-7 on either side: 1000 counts, 2e-4 in all.
    """
    low, high = stats.hypergeom.ppf(1e-7, 2000, 200, 100), stats.hypergeom.isf(1e-7, 2000, 200, 100)
    for seed in range(5):
        counts = counts_of(BALANCED, IID()(BALANCED, 20, seed))
        assert low <= counts.min() <= counts.max() <= high


# Dirichlet


def slow_dirichlet(labels, num_clients, alpha, min_size, seed):
    """The procedure once more, sample by sample in plain Python; only the draws themselves are NumPy's."""
    generator = np.random.default_rng(seed)
    positions = {}
    for position, label in enumerate(labels.tolist()):
        positions.setdefault(label, []).append(position)
    for _attempt in range(11):
        held = [[] for _ in range(num_clients)]
        for label in sorted(positions):
            shares = generator.dirichlet([alpha] * num_clients).tolist()
            total, starts = 0.0, [0]
            for share in shares:
                total += share
                starts.append(int(total * len(positions[label])))
            starts[-1] = len(positions[label])
            for client in range(num_clients):
                held[client] += positions[label][starts[client] : starts[client + 1]]
        if min(map(len, held)) >= min_size:
            arrays = [np.array(rows, dtype=np.int64) for rows in held]
            for array in arrays:
                generator.shuffle(array)
            return arrays
    raise ValueError("11 draws")


@pytest.mark.parametrize("labels", [DIGITS, UNEVEN, BALANCED[:300]], ids=["digits", "uneven", "balanced"])
@pytest.mark.parametrize(
    "settings", [(1, 0.5, 1), (7, 0.3, 2), (20, 0.5, 1), (25, 5.0, 3), (60, 0.1, 0), (30, 50, 1)], ids=str
)
@pytest.mark.parametrize("seed", [0, 1, 42])
def test_dirichlet_agrees_with_a_slow_reference(labels, settings, seed):
    num_clients, alpha, min_size = settings
    expected = slow_dirichlet(labels, num_clients, alpha, min_size, seed)
    found = Dirichlet(alpha, min_size)(labels, num_clients, seed)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("clients", "alpha", "min_size", "sizes", "start", "digest"),
    [
        (10, 0.5, 10, "267 240 56 279 195 173 154 104 247 82", "982 287 17 239 38", "c40a601b74a082b8"),
        (10, 0.1, 0, "193 525 134 132 143 40 207 19 184 220", "791 506 68 150 1189", "5004296f8bc78867"),
        (10, 0.1, 10, "193 525 134 132 143 40 207 19 184 220", "791 506 68 150 1189", "5004296f8bc78867"),
        (
            20,
            0.5,
            10,
            "159 113 49 96 89 123 128 94 100 46 134 59 108 94 108 50 65 45 107 30",
            "4 197 88 75 5",
            "803e500489056128",
        ),
    ],
)
def test_dirichlet_gives_the_indices_of_flwr_datasets(clients, alpha, min_size, sizes, start, digest):
    """Values of flwr-datasets 0.6.1 (DirichletPartitioner, self_balancing=False, seed=42) on all 1,797 digits."""
    parts = Dirichlet(alpha, min_size)(DIGITS, clients, 42)
    assert " ".join(str(len(part)) for part in parts) == sizes
    assert " ".join(map(str, parts[0][:5])) == start
    assert hashlib.sha256(np.concatenate(parts).astype("<i8").tobytes()).hexdigest()[:16] == digest


def test_dirichlet_shares_follow_their_distribution():
    """A client's share of a class is Beta(alpha, alpha (N - 1)); alpha = 0.5, N = 10.

    Seeds 0 .. 59 times 4 classes: 240 independent shares of client 0. The number of them below each of three quantiles is
    Binomial(240, q); false-alarm rate 1e-6 each, 3e-6 in all. Cutting at whole samples moves a share by 1/5000 at most.
    """
    labels = np.repeat(np.arange(4), 5000)
    shares = [counts_of(labels, Dirichlet(0.5, 0)(labels, 10, seed)[:1])[0] / 5000 for seed in range(60)]
    for quantile in (0.25, 0.5, 0.9):
        below = int((np.array(shares) < stats.beta.ppf(quantile, 0.5, 4.5)).sum())
        low, high = binomial_range(240, quantile, 1e-6)
        assert low <= below <= high


def test_dirichlet_with_huge_alpha_is_nearly_iid():
    """Shares tend to 1/N: sizes as IID's within one sample a class, labels within two of their expectation."""
    parts = Dirichlet(alpha=1e8)(BALANCED, 20, 0)
    sizes = np.array([len(part) for part in parts])
    assert np.abs(sizes - 100).max() <= 10
    assert np.abs(counts_of(BALANCED, parts) - 10).max() <= 2
    shares = counts_of(BALANCED, parts) / sizes[:, None]
    iid = counts_of(BALANCED, IID()(BALANCED, 20, 0)) / 100
    assert np.abs(shares - 0.1).max() < np.abs(iid - 0.1).max()


def test_smaller_alpha_is_more_skewed():
    def largest_share(alpha):
        counts = counts_of(BALANCED, Dirichlet(alpha, 0)(BALANCED, 20, 0))
        kept = counts[counts.sum(axis=1) > 0]
        return float((kept.max(axis=1) / kept.sum(axis=1)).mean())

    largest = [largest_share(alpha) for alpha in (0.01, 0.1, 1.0, 10.0, 1e4)]
    assert largest == sorted(largest, reverse=True)
    assert largest[-1] < 0.15


def test_tiny_alpha_gives_most_of_a_class_to_one_client():
    """Ten classes, alpha = 0.01, 20 clients: the largest of 20 shares is 0.9 in expectation, and each draw is independent.

    Seeds 0 .. 9, 100 classes: their mean has a standard deviation below 0.017, so that 0.8 is more than five of them away.
    """
    shares = [(counts_of(BALANCED, Dirichlet(0.01, 0)(BALANCED, 20, seed)).max(axis=0) / 200).mean() for seed in range(10)]
    assert np.mean(shares) > 0.8


def test_dirichlet_draws_again_until_every_client_has_enough():
    redrawn = 0
    for seed in range(10):
        smallest = min(map(len, Dirichlet(0.3, min_size=0)(DIGITS, 20, seed)))
        assert min(map(len, Dirichlet(0.3, min_size=15)(DIGITS, 20, seed))) >= 15
        redrawn += smallest < 15
    assert 0 < redrawn < 10


def test_dirichlet_gives_up_with_advice():
    labels = np.repeat(np.arange(10), 6000)
    with pytest.raises(
        ConfigError, match=r"1000 clients.*11 draws.*Raise alpha, lower the number of clients.*min_size=0 allows"
    ):
        Dirichlet(0.1)(labels, 1000, 0)
    sizes = np.array([len(part) for part in Dirichlet(0.1, min_size=0)(labels, 1000, 0)])
    assert sizes.sum() == 60000
    assert 0 < (sizes == 0).sum() < 100
    assert min(len(part) for part in Dirichlet(0.5)(labels, 1000, 0)) >= 1


def test_dirichlet_on_fashion_mnist_with_1000_clients(fashion):
    with pytest.raises(ConfigError, match="min_size=0"):
        Dirichlet(0.1)(fashion.y_train, 1000, 42)
    sizes = [len(part) for part in Dirichlet(0.1, min_size=0)(fashion.y_train, 1000, 42)]
    assert min(sizes) == 0
    assert 300 < max(sizes) < 1000
    assert sum(sizes) == 60000


def test_dirichlet_refuses_more_than_there_is():
    with pytest.raises(ConfigError, match=re.escape("got 100 * 20 > 1797")):
        Dirichlet(min_size=20)(DIGITS, 100, 0)
    with pytest.raises(ConfigError, match="floating point"):
        Dirichlet(alpha=1.7e308)(DIGITS, 10, 0)


# k classes


@pytest.mark.parametrize("k", [1, 2, 3, 9, 10])
@pytest.mark.parametrize("num_clients", [10, 23, 50])
def test_k_classes_gives_exactly_k_and_spreads_them_evenly(k, num_clients):
    held = counts_of(DIGITS, KClasses(k)(DIGITS, num_clients, 1)) > 0
    assert (held.sum(axis=1) == k).all()
    holders = held.sum(axis=0)
    assert set(holders.tolist()) <= {num_clients * k // 10, -(-num_clients * k // 10)}


def test_k_classes_divides_each_class_evenly():
    counts = counts_of(DIGITS, KClasses(2)(DIGITS, 23, 1))
    for column in counts.T:
        pieces = column[column > 0]
        assert pieces.max() - pieces.min() <= 1


def test_k_classes_picks_every_class_equally_often():
    """Over seeds 0 .. 399, client 3 of 7 holds a given one of 10 classes Binomial(400, 0.2) times.

    Ten classes, false-alarm rate 1e-6 each, 1e-5 in all.
    """
    labels = np.arange(100) % 10
    times = sum(counts_of(labels, KClasses(2)(labels, 7, seed)[3:4])[0] > 0 for seed in range(400))
    low, high = binomial_range(400, 0.2, 1e-6)
    assert low <= times.min() <= times.max() <= high


@pytest.mark.parametrize(
    ("k", "num_clients", "labels", "says"),
    [
        (11, 20, DIGITS, "got k=11, 10 classes"),
        (2, 4, DIGITS, "4 * 2 < 10"),
        (2, 12, np.repeat([0, 1, 2], [50, 50, 3]), "class 2 has 3 samples for 8 clients"),
    ],
)
def test_k_classes_refuses_the_impossible(k, num_clients, labels, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        KClasses(k)(labels, num_clients, 0)


# Shards


def test_shards_as_in_the_paper():
    """60,000 samples, 100 clients, two shards of 300: 600 samples and at most two classes each."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 6000))
    counts = counts_of(labels, Shards(2)(labels, 100, 0))
    assert (counts.sum(axis=1) == 600).all()
    assert set(np.unique(counts)) == {0, 300, 600}
    assert (counts > 0).sum(axis=1).max() == 2


@pytest.mark.parametrize("per_client", [1, 2, 5])
def test_shards_are_consecutive_in_label_order(per_client):
    order = np.argsort(DIGITS, kind="stable")
    position = np.empty(len(order), dtype=int)
    position[order] = np.arange(len(order))
    parts = Shards(per_client)(DIGITS, 17, 0)
    breaks = [int((np.diff(position[part]) != 1).sum()) for part in parts]
    assert max(breaks) <= per_client - 1
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= per_client


def test_each_shard_goes_to_each_client_equally_often():
    """One shard a client: over seeds 0 .. 399 client 0 of 5 gets a given shard Binomial(400, 0.2) times.

    Five shards, false-alarm rate 1e-6 each, 5e-6 in all.
    """
    labels = np.arange(5)
    got = np.bincount([int(Shards(1)(labels, 5, seed)[0][0]) for seed in range(400)], minlength=5)
    low, high = binomial_range(400, 0.2, 1e-6)
    assert low <= got.min() <= got.max() <= high


def test_shards_refuses_more_shards_than_samples():
    with pytest.raises(ConfigError, match=re.escape("got 1000 * 2 > 1797")):
        Shards(2)(DIGITS, 1000, 0)
