import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from fedagg.data.partitions import QuantityDirichlet, QuantityLognormal
from fedagg.errors import ConfigError
from tests.data.test_partitions import BALANCED, DIGITS, binomial_range, counts_of

EITHER = st.one_of(
    st.builds(QuantityDirichlet, st.floats(0.05, 100), st.integers(0, 2)),
    st.builds(QuantityLognormal, st.floats(0, 3), st.integers(0, 2)),
)


@given(EITHER, arrays.arrays(np.int64, st.integers(2, 200), elements=st.integers(0, 4)), st.integers(1, 40), st.integers(0, 9))
def test_everybody_has_the_labels_of_all(partition, labels, clients, seed):
    clients = min(clients, len(labels) // max(partition.min_size, 1))
    parts = partition(labels, clients, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    counts = counts_of(labels, parts)
    sizes, of_class = counts.sum(axis=1), counts.sum(axis=0)
    assert sizes.min() >= partition.min_size
    due = sizes[:, None] * of_class / len(labels)
    assert (np.abs(counts - due) < 2 * (1 + len(of_class) * of_class / len(labels))).all()


def test_dirichlet_sizes_follow_their_distribution():
    """A client's part is Beta(alpha, alpha (N - 1)); alpha = 0.5, N = 10. Seeds 0 .. 239, client 0.

    The number of parts below each of three quantiles is Binomial(240, q); false-alarm rate 1e-6 each, 3e-6 in all.
    """
    labels = np.zeros(5000, int)
    shares = np.array([len(QuantityDirichlet(0.5, 0)(labels, 10, seed)[0]) / 5000 for seed in range(240)])
    for quantile in (0.25, 0.5, 0.9):
        low, high = binomial_range(240, quantile, 1e-6)
        assert low <= (shares < stats.beta.ppf(quantile, 0.5, 4.5)).sum() <= high


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_lognormal_sizes_follow_their_distribution(sigma):
    """ln(size of client 0 / size of client 1) is normal with variance 2 sigma^2. Seeds 0 .. 239.

    The number below each of three quantiles is Binomial(240, q); false-alarm rate 1e-6 each, 3e-6 in all.
    """
    labels = np.zeros(20_000, int)
    sizes = np.array([[len(part) for part in QuantityLognormal(sigma, 0)(labels, 4, seed)] for seed in range(240)])
    ratios = np.log(np.maximum(sizes[:, 0], 0.5) / np.maximum(sizes[:, 1], 0.5))
    for quantile in (0.1, 0.5, 0.8):
        low, high = binomial_range(240, quantile, 1e-6)
        assert low <= (ratios < stats.norm.ppf(quantile, scale=sigma * 2**0.5)).sum() <= high


@pytest.mark.parametrize("partition", [QuantityDirichlet(1e8), QuantityLognormal(0.0)], ids=str)
def test_without_spread_all_are_alike(partition):
    """Sizes as IID's, but for one sample; of 200 samples of a class in 20 parts everybody has 10, give or take less than 4."""
    counts = counts_of(BALANCED, partition(BALANCED, 20, 0))
    assert np.abs(counts.sum(axis=1) - 100).max() <= 1
    assert np.abs(counts - 10).max() < 4


def test_small_clients_have_all_labels_too():
    """Were each class cut by itself, half a sample of each of ten classes would always be rounded the same way."""
    counts = counts_of(BALANCED, QuantityLognormal(0.0)(BALANCED, 400, 0))
    assert set(counts.sum(axis=1).tolist()) <= {4, 5, 6}
    assert counts.max() <= 3


def test_samples_are_drawn_at_random():
    """Row 0 belongs to client 0 of 5 Binomial(400, 0.2) times over seeds 0 .. 399; false-alarm rate 1e-6."""
    labels = np.arange(50) % 5
    times = sum(0 in QuantityLognormal(0.0)(labels, 5, seed)[0] for seed in range(400))
    low, high = binomial_range(400, 0.2, 1e-6)
    assert low <= times <= high


def test_which_labels_small_clients_have_is_random():
    """Of 5 classes client 0 of 25 has two: class 0 Binomial(400, 0.4) times over seeds 0 .. 399; false-alarm rate 1e-6."""
    labels = np.repeat(np.arange(5), 10)
    times = sum(0 in labels[QuantityLognormal(0.0)(labels, 25, seed)[0]] for seed in range(400))
    low, high = binomial_range(400, 0.4, 1e-6)
    assert low <= times <= high


def test_min_size_comes_first():
    sizes = [len(part) for part in QuantityDirichlet(0.01, min_size=80)(DIGITS, 20, 0)]
    assert min(sizes) >= 80
    assert sum(sizes) == 1797
    assert min(len(part) for part in QuantityDirichlet(0.01, min_size=0)(DIGITS, 20, 0)) == 0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: QuantityDirichlet(0), "alpha > 0; got alpha=0"),
        (lambda: QuantityDirichlet(0.5, -1), "min_size >= 0; got min_size=-1"),
        (lambda: QuantityLognormal(-1), "sigma between 0 and 10; got sigma=-1"),
        (lambda: QuantityLognormal(float("nan")), "got sigma=nan"),
        (lambda: QuantityLognormal(1, 100)(DIGITS, 20, 0), r"got 20 \* 100 > 1797"),
    ],
)
def test_impossible_settings_say_what_is_wrong(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
