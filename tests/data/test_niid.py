import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedagg.data.partitions import NIID1, NIID2, niid1, niid2
from fedagg.errors import ConfigError
from tests.data.test_partitions import BALANCED, DIGITS, UNEVEN, counts_of

# NIID-1


def slow_niid1(labels, clients, beta, min_size, seed):
    """Sizes and labels by the definition, client by client; the draws and the sums of shares, to the last bit, are NumPy's."""
    generator = np.random.default_rng(seed)
    classes = sorted(set(labels.tolist()))
    for _attempt in range(1000):
        held = [dict.fromkeys(classes, 0) for _ in range(clients)]
        for label in classes:
            m = int((labels == label).sum())
            p = generator.dirichlet([beta] * clients)
            for client in range(clients):
                if sum(held[client].values()) >= len(labels) / clients:
                    p[client] = 0
            if p.sum() == 0:
                break
            so_far, start = np.cumsum(p / p.sum()).tolist(), 0
            for client in range(clients):
                end = m if client == clients - 1 else int(so_far[client] * m)
                held[client][label] += end - start
                start = end
        else:
            if min(sum(own.values()) for own in held) >= min_size:
                return [[own[label] for label in classes] for own in held]
    raise ValueError("1000 draws")


@pytest.mark.parametrize("labels", [DIGITS, UNEVEN, BALANCED], ids=["digits", "uneven", "balanced"])
@pytest.mark.parametrize("settings", [(10, 0.5, 10), (20, 0.1, 1), (3, 5.0, 0), (30, 0.5, 5), (1, 0.5, 10)], ids=str)
@pytest.mark.parametrize("seed", [0, 7])
def test_niid1_agrees_with_a_slow_reference(labels, settings, seed):
    clients, beta, min_size = settings
    parts = niid1(labels, clients, beta, min_size, seed)
    assert counts_of(labels, parts).tolist() == slow_niid1(labels, clients, beta, min_size, seed)
    for one, other in zip(parts, NIID1(beta, min_size)(labels, clients, seed), strict=True):
        np.testing.assert_array_equal(one, other)


@given(st.integers(2, 30), st.sampled_from([0.1, 0.5, 5.0]), st.integers(0, 1000))
def test_nobody_who_has_enough_gets_more(clients, beta, seed):
    """But the last client, to whom the rest of a class goes: one sample where rounding left it."""
    counts = counts_of(BALANCED, niid1(BALANCED, clients, beta, 0, seed))
    before = np.cumsum(counts, axis=1) - counts
    full = before >= 2000 / clients
    assert (counts[:-1][full[:-1]] == 0).all()
    assert (counts[-1][full[-1]] <= 1).all()


def test_which_samples_of_a_class_a_client_gets_is_random():
    mean = np.mean([niid1(np.zeros(1000, int), 2, 5.0, 10, seed)[0].mean() for seed in range(50)])
    assert (
        abs(mean - 499.5) < 60
    )  # a mean of 500 of 1000 rows has a standard deviation of 9; without a shuffle it is 250 lower
    part = niid1(DIGITS, 10)[0]
    assert (np.diff(DIGITS[part]) < 0).any()  # in no order


def test_niid1_with_huge_beta_is_nearly_iid():
    counts = counts_of(BALANCED, NIID1(beta=1e8)(BALANCED, 20, 0))
    assert np.abs(counts - 10).max() <= 2
    assert np.abs(counts.sum(axis=1) - 100).max() <= 10


def test_niid1_keeps_sizes_closer_than_its_draws():
    """The largest of 10 clients has at most its 200 and one more class: 400 of 2000."""
    assert max(len(part) for seed in range(30) for part in niid1(BALANCED, 10, 0.1, 1, seed)) <= 400


def test_niid1_gives_up_with_advice():
    with pytest.raises(ConfigError, match=r"samples >= 17 on each of 100.*1000 draws.*Raise beta.*min_size=0"):
        niid1(DIGITS, 100, beta=0.1, min_size=17)
    with pytest.raises(ConfigError, match=re.escape("got 180 * 10 > 1797")):
        niid1(DIGITS, 180)


@pytest.mark.parametrize("beta", [0, -1, float("nan"), float("inf"), "small"])
def test_niid1_needs_a_concentration(beta):
    with pytest.raises(ConfigError, match="beta > 0; got beta="):
        NIID1(beta=beta)


# NIID-2


def test_niid2_on_cifar_10():
    """50,000 samples, 5 biased and 1 unbiased: s = 833, so 4165 of each of two classes, or 833 of each of ten."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 5000))
    counts = counts_of(labels, niid2(labels, biased=5, unbiased=1))
    assert counts.sum(axis=1).tolist() == [8330] * 6
    for client in range(5):
        assert np.flatnonzero(counts[client]).tolist() == [2 * client, 2 * client + 1]
        assert counts[client].max() == 4165
    assert counts[5].tolist() == [833] * 10


def test_niid2_on_cifar_100():
    labels = np.arange(50_000) % 100
    counts = counts_of(labels, niid2(labels))
    assert counts.sum(axis=1).tolist() == [8300] * 6
    for client in range(5):
        assert np.flatnonzero(counts[client]).tolist() == list(range(20 * client, 20 * client + 20))


def test_niid2_by_hand():
    """24 samples of each of 10 classes, the k-th of class c is row c + 10 k; 10 biased and 2 unbiased clients: s = 2.

    Client 7 is of the second five and has classes 4 and 5, samples 10 .. 19; the unbiased have samples 20, 21 and 22, 23.
    """
    parts = [sorted(part.tolist()) for part in niid2(np.arange(240) % 10, biased=10, unbiased=2)]
    assert parts[0] == sorted([10 * k for k in range(10)] + [10 * k + 1 for k in range(10)])
    assert parts[7] == sorted([10 * k + 4 for k in range(10, 20)] + [10 * k + 5 for k in range(10, 20)])
    assert parts[10] == list(range(200, 220))
    assert parts[11] == list(range(220, 240))
    assert sorted(np.concatenate(parts).tolist()) == list(range(240))  # nothing is left here


@pytest.mark.parametrize(("biased", "unbiased"), [(5, 1), (10, 3), (5, 0), (0, 4), (40, 10)])
def test_niid2_clients_are_equal_in_size_and_share_nothing(biased, unbiased):
    parts = NIID2(biased, unbiased)(BALANCED, biased + unbiased, 1)
    size = 10 * (2000 // 10 // (biased + unbiased))
    assert [len(part) for part in parts] == [size] * (biased + unbiased)
    assert len(np.unique(np.concatenate(parts))) == size * (biased + unbiased)


def test_the_seed_of_niid2_decides_the_order_alone():
    first, again, other = niid2(BALANCED, seed=3), niid2(BALANCED, seed=3), niid2(BALANCED, seed=4)
    assert all(one.tobytes() == two.tobytes() for one, two in zip(first, again, strict=True))
    assert all(one.tobytes() != two.tobytes() for one, two in zip(first, other, strict=True))
    assert all(set(one.tolist()) == set(two.tolist()) for one, two in zip(first, other, strict=True))


def test_a_class_may_have_more_than_its_share():
    """103 samples, blocks of 10 of each of 10 classes: what a class has beyond them is left."""
    labels = np.repeat(np.arange(10), [10, 11, 10, 10, 10, 12, 10, 10, 10, 10])
    assert counts_of(labels, niid2(labels, 5, 5)).sum(axis=0).tolist() == [10] * 10


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: niid2(BALANCED, biased=4), "multiple of 5; got biased=4"),
        (lambda: niid2(BALANCED, biased=5, unbiased=-1), "unbiased >= 0; got unbiased=-1"),
        (lambda: niid2(BALANCED, biased=5.0), "biased >= 0; got biased=5.0"),
        (lambda: niid2(np.arange(60) % 6), "multiple of 5 classes; the data have 6"),
        (lambda: niid2(DIGITS), "179 samples or more of each; class 8 has 174"),
        (lambda: niid2(np.arange(50) % 10), "6 clients, 5 samples"),
        (lambda: niid2(BALANCED, 0, 0), "clients >= 1; got 0"),
        (lambda: NIID2()(BALANCED, 20, 0), "got 20 clients. Set population to 6"),
        (lambda: niid2(BALANCED, seed=-1), "seed >= 0"),
        (lambda: niid2(BALANCED.astype(float)), "integer labels"),
    ],
)
def test_impossible_calls_say_what_is_wrong(call, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        call()
