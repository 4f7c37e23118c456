import re

import numpy as np
import pytest

from fedagg.data import Population, Views
from fedagg.data.partitions import IID, Dirichlet, FeatureSkew, LongTail
from fedagg.errors import ConfigError
from tests.data.test_partitions import UNEVEN, binomial_range, counts_of

EVEN = np.random.default_rng(1).permutation(np.arange(1000) % 10)


def test_classes_fall_off_geometrically():
    """100 a class, ratio 100: 100 * 100^(-k/9), rounded down; by a calculator."""
    parts = LongTail(ratio=100)(EVEN, 20, 0)
    assert counts_of(EVEN, parts).sum(axis=0).tolist() == [100, 59, 35, 21, 12, 7, 4, 2, 1, 1]
    rows = np.concatenate(parts)
    assert len(np.unique(rows)) == len(rows)


def test_no_class_has_more_than_it_had():
    """901 samples of 4 classes: 225.25 * (1, 10^(-1/3), 10^(-2/3), 1/10) = 225, 104, 48, 22, and class 3 has but 90."""
    assert counts_of(UNEVEN, LongTail()(UNEVEN, 5, 0)).sum(axis=0).tolist() == [225, 90, 48, 22]


def test_ratio_1_changes_nothing_but_the_order():
    for one, other in zip(LongTail(Dirichlet(0.3), ratio=1)(EVEN, 9, 4), Dirichlet(0.3)(EVEN, 9, 4), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_base_shares_out_what_is_left():
    left = np.sort(np.concatenate(LongTail(ratio=5)(EVEN, 1, 7)))
    for base in (IID(), Dirichlet(0.5, 0), Views(40)):
        expected = base(EVEN[left], 6, 7)
        for one, other in zip(LongTail(base, ratio=5)(EVEN, 6, 7), expected, strict=True):
            np.testing.assert_array_equal(one, left[other])


def test_which_samples_are_kept_is_random():
    """ratio 2: the last class keeps half; one of its rows is kept Binomial(400, 0.5) times, seeds 0 .. 399; alarm 1e-6."""
    labels = np.arange(40) % 2
    times = sum(39 in np.concatenate(LongTail(ratio=2)(labels, 4, seed)) for seed in range(400))
    low, high = binomial_range(400, 0.5, 1e-6)
    assert low <= times <= high


def test_populations_of_a_long_tail(toy):
    population = Population.split(toy, LongTail(Dirichlet(0.1, min_size=0), ratio=3), 30, seed=1)
    assert population.label_counts.sum(dim=0).tolist() == [30, 20, 14, 10]
    assert population.summary()["empty_clients"] > 0
    assert len(population.test()[1]) == 10
    assert eval(repr(population.partition)) == population.partition


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: LongTail(ratio=0.5), "ratio >= 1; got ratio=0.5"),
        (lambda: LongTail(ratio=float("inf")), "got ratio=inf"),
        (lambda: LongTail(ratio=1000)(EVEN, 5, 0), "leaves nothing of class 7"),
        (lambda: LongTail(FeatureSkew()), "put FeatureSkew around LongTail"),
        (lambda: LongTail(ratio=10)(EVEN, 404, 0), "404 clients, 403 samples"),
        (lambda: LongTail(ratio=100)(EVEN, 243, 0), "243 clients, 242 samples"),
        (lambda: LongTail()(EVEN, 1001, 0), "1001 clients, 1000 samples"),
    ],
)
def test_the_impossible_is_refused(call, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        call()
