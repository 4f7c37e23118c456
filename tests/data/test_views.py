from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from fedagg.data import Population, Views
from fedagg.errors import ConfigError


@pytest.mark.parametrize(("samples", "total"), [(1, 1), (1, 9), (4, 9), (5, 9), (8, 9), (9, 9), (32, 1000), (600, 1000)])
def test_every_client_sees_distinct_rows_in_ascending_order(samples, total):
    views = Views(samples)(np.arange(total) % 3, 50, seed=1)
    assert len(views) == 50
    for rows in views:
        assert rows.shape == (samples,)
        assert rows.dtype.kind == "i"
        assert 0 <= rows[0] <= rows[-1] < total
        assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_every_set_of_rows_is_equally_likely_and_clients_are_independent(samples):
    """20,000 clients, C(6, samples) = 15 or 20 sets, and the same for the sets of two neighbours; a right draw fails one of
    the two chi-square tests with probability 2e-5."""
    sets = {rows: place for place, rows in enumerate(combinations(range(6), samples))}
    drawn = np.array([sets[tuple(rows.tolist())] for rows in Views(samples)(np.zeros(6, int), 20000, seed=0)])
    assert stats.chisquare(np.bincount(drawn, minlength=len(sets))).pvalue > 1e-5
    pairs = drawn[::2] * len(sets) + drawn[1::2]
    assert stats.chisquare(np.bincount(pairs, minlength=len(sets) ** 2)).pvalue > 1e-5


@pytest.mark.parametrize("samples", [3, 30])
def test_the_seed_alone_decides(samples):
    labels = np.arange(40) % 4
    first, again, other = (Views(samples)(labels, 200, seed) for seed in (3, 3, 4))
    assert first.flat.tobytes() == again.flat.tobytes() != other.flat.tobytes()
    assert first.flat.tobytes() == Views(samples)(labels[::-1], 200, 3).flat.tobytes()  # labels have no part in it


def test_more_clients_than_rows(toy):
    population = Population.split(toy, Views(10), 1000, seed=2, holdout=0.2)
    assert population.num_examples.tolist() == [8] * 1000
    assert population.train(999)[0].shape == (8, 2)
    assert str(population) == "1000 clients with 10 samples each of toy"
    assert repr(population) == "<Population of 1000 clients: toy, Views(samples=10), seed 2, holdout 0.2>"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Views(0), "samples >= 1; got samples=0"),
        (lambda: Views(2.0), "samples >= 1; got samples=2.0"),
        (lambda: Views(True), "samples >= 1; got samples=True"),
        (lambda: Views(11)(np.zeros(10, int), 3, 0), "got 11 > 10. Lower samples"),
        (lambda: Views(2)(np.zeros(10), 3, 0), "integer labels"),
        (lambda: Views(2)(np.zeros(10, int), 0, 0), "number of clients >= 1; got 0"),
        (lambda: Views(2)(np.zeros(10, int), 3, -1), "seed >= 0; got -1"),
    ],
)
def test_impossible_calls_say_what_is_wrong(call, says):
    with pytest.raises(ConfigError, match=says):
        call()
