import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from fedagg.data.partitions import IID, ClientDirichlet, GammaSimilarity, split_by_proportions
from fedagg.errors import ConfigError
from tests.data.test_partitions import BALANCED, DIGITS, UNEVEN, binomial_range, counts_of

# Given proportions


def test_a_split_by_hand():
    """Class 0 is rows 0 2 5 6, asked for 1 : 1 : 2; class 1 is rows 1 3 4 7 8 9, asked for 0 : 2 : 1."""
    labels = [0, 1, 0, 1, 1, 0, 0, 1, 1, 1]
    proportions = [[1, 0], [1, 2], [2, 1]]
    expected = [[0], [2, 1, 3, 4, 7], [5, 6, 8, 9]]
    for given_as in (np.array(proportions), torch.tensor(proportions), torch.tensor(proportions) / 7, proportions):
        parts = split_by_proportions(np.array(labels), given_as)
        assert [part.tolist() for part in parts] == expected
        assert all(part.dtype == np.int64 for part in parts)
    assert [part.tolist() for part in split_by_proportions(torch.tensor(labels), proportions)] == expected


def test_halves_go_to_the_even_number():
    """Two clients that ask alike: of 5 samples 2.5 becomes 2, of 7 samples 3.5 becomes 4."""
    parts = split_by_proportions(np.repeat([0, 1], [5, 7]), [[1, 1], [1, 1]])
    assert [part.tolist() for part in parts] == [[0, 1, 5, 6, 7, 8], [2, 3, 4, 9, 10, 11]]


def test_a_class_without_samples_may_have_no_client():
    assert [part.tolist() for part in split_by_proportions(np.array([0, 0, 2]), [[1, 0, 0], [1, 0, 1]])] == [[0], [1, 2]]


@given(
    arrays.arrays(np.int64, st.integers(0, 60), elements=st.integers(0, 3)),
    arrays.arrays(np.float64, st.tuples(st.integers(1, 9), st.just(4)), elements=st.floats(1e-3, 1e3)),
)
def test_every_cut_is_the_nearest_one(labels, proportions):
    parts = split_by_proportions(labels, proportions)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    for label in range(4):
        held = np.cumsum([(labels[part] == label).sum() for part in parts])
        due = (labels == label).sum() * np.cumsum(proportions[:, label]) / proportions[:, label].sum()
        assert np.abs(held - due).max() <= 0.5 + 1e-9
        order = np.concatenate([part[labels[part] == label] for part in parts])
        assert (np.diff(order) > 0).all()  # as in the data set


@pytest.mark.parametrize(
    ("labels", "proportions", "says"),
    [
        ([0, 1], [[1, -1]], "not negative"),
        ([0, 1], [[1, float("nan")]], "finite"),
        ([0, 1], [1, 1], "proportions [N, C], finite and not negative; got [2]"),
        ([0, 1], np.empty((0, 2)), "got [0, 2]"),
        ([0, 2], [[1, 1]], "got labels 0 .. 2 and proportions of 2 classes"),
        ([-1, 1], [[1, 1]], "got labels -1 .. 1"),
        ([0, 1], [[1, 0], [2, 0]], "a client that asks for class 1"),
        ([0.5, 1], [[1, 1]], "integer labels"),
    ],
)
def test_impossible_proportions_say_what_is_wrong(labels, proportions, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        split_by_proportions(np.array(labels), proportions)


# Clients that draw their own mixture


@pytest.mark.parametrize("labels", [DIGITS, UNEVEN], ids=["digits", "uneven"])
@pytest.mark.parametrize(("clients", "alpha", "seed"), [(20, 0.1, 0), (7, 1.0, 3), (40, 5.0, 42)])
def test_client_dirichlet_agrees_with_a_slow_reference(labels, clients, alpha, seed):
    """Client by client and class by class, as the formula stands; only the draws are NumPy's."""
    classes = sorted(set(labels.tolist()))
    asked = np.random.default_rng(seed).dirichlet([alpha] * len(classes), clients).tolist()
    expected = [[] for _ in range(clients)]
    for c, label in enumerate(classes):
        rows = [row for row, value in enumerate(labels.tolist()) if value == label]
        total, so_far, start = sum(q[c] for q in asked), 0.0, 0
        for client in range(clients):
            so_far += asked[client][c]
            end = round(len(rows) * so_far / total)  # Python rounds halves to even, too
            expected[client] += rows[start:end]
            start = end
    assert min(map(len, expected)) > 0  # the first draw was taken
    assert [part.tolist() for part in ClientDirichlet(alpha)(labels, clients, seed)] == expected


def test_clients_are_alike_before_the_draw():
    """Which of 5 clients holds most of class 0 is uniform: over seeds 0 .. 399 client i is it Binomial(400, 0.2) times.

    False-alarm rate 1e-6 for each of five clients, 5e-6 in all.
    """
    labels = np.arange(4000) % 4
    most = [counts_of(labels, ClientDirichlet(0.3)(labels, 5, seed))[:, 0].argmax() for seed in range(400)]
    times = np.bincount(most, minlength=5)
    low, high = binomial_range(400, 0.2, 1e-6)
    assert low <= times.min() <= times.max() <= high


def test_client_dirichlet_with_huge_alpha_is_nearly_iid():
    """Everybody asks for the same: each class in equal parts but for rounding, and so the sizes."""
    counts = counts_of(DIGITS, ClientDirichlet(1e8)(DIGITS, 20, 0))
    assert np.abs(counts - np.bincount(DIGITS) / 20).max() <= 1
    assert np.abs(counts.sum(axis=1) - 1797 / 20).max() <= 10


def test_smaller_alpha_is_more_skewed_for_clients():
    def largest_share(alpha):
        counts = counts_of(BALANCED, ClientDirichlet(alpha)(BALANCED, 20, 0))
        return float((counts.max(axis=1) / counts.sum(axis=1)).mean())

    largest = [largest_share(alpha) for alpha in (0.1, 1.0, 10.0, 1e4)]
    assert largest == sorted(largest, reverse=True)


def test_client_dirichlet_draws_again_and_gives_up_with_advice():
    redrawn = 0
    for seed in range(10):
        redrawn += min(map(len, ClientDirichlet(0.1, min_size=0)(DIGITS, 20, seed))) < 50
        assert min(map(len, ClientDirichlet(0.1, min_size=50)(DIGITS, 20, seed))) >= 50
    assert redrawn > 0
    with pytest.raises(ConfigError, match=r"samples >= 89 on each of 20.*11 draws.*Raise alpha"):
        ClientDirichlet(0.1, min_size=89)(DIGITS, 20, 0)


# A share at random, the rest by label


def test_gamma_1_is_iid_and_gamma_0_is_sorted():
    for one, other in zip(GammaSimilarity(1.0)(DIGITS, 20, 3), IID()(DIGITS, 20, 3), strict=True):
        np.testing.assert_array_equal(one, other)
    labels = np.array([3, 1, 2, 1, 3, 1, 2])
    parts = GammaSimilarity(0.0)(labels, 3, seed=0)
    assert [part.tolist() for part in parts] == [[1, 3], [5, 2], [6, 0, 4]]


@given(
    arrays.arrays(np.int64, st.integers(1, 80), elements=st.integers(0, 4)),
    st.floats(0, 1),
    st.integers(1, 80),
    st.integers(0, 5),
)
def test_gamma_similarity_as_defined(labels, gamma, clients, seed):
    clients = min(clients, len(labels))
    parts = GammaSimilarity(gamma)(labels, clients, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    count = int(gamma * len(labels))
    random = [count // clients + (i < count % clients) for i in range(clients)]
    rest = [row for part, size in zip(parts, random, strict=True) for row in part[size:].tolist()]
    assert rest == sorted(rest, key=lambda row: (labels[row], row))


def test_which_samples_are_iid_is_random():
    """gamma = 0.25: row 0 is among the random ones Binomial(400, 0.25) times over seeds 0 .. 399; so is row 1999.

    False-alarm rate 1e-6 each. That the random part of a client has the labels of all: of 5 clients' 100 random samples each,
    class 0 (200 of 2000) has Hypergeometric(2000, 200, 100); 1e-6 each, seeds 0 .. 9, 5e-5 in all.
    """
    first, last = 0, 0
    for seed in range(400):
        drawn = np.concatenate([part[:100] for part in GammaSimilarity(0.25)(BALANCED, 5, seed)])
        first, last = first + (0 in drawn), last + (1999 in drawn)
    low, high = binomial_range(400, 0.25, 1e-6)
    assert low <= first <= high
    assert low <= last <= high
    low, high = stats.hypergeom.ppf(5e-7, 2000, 200, 100), stats.hypergeom.isf(5e-7, 2000, 200, 100)
    for seed in range(10):
        counts = [int((BALANCED[part[:100]] == 0).sum()) for part in GammaSimilarity(0.25)(BALANCED, 5, seed)]
        assert low <= min(counts) <= max(counts) <= high


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan"), True, "half"])
def test_gamma_is_a_share(gamma):
    with pytest.raises(ConfigError, match="gamma between 0 and 1; got gamma="):
        GammaSimilarity(gamma)
