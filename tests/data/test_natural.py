import re

import numpy as np
import pytest

from fedagg.data import Dataset, Population
from fedagg.data.partitions import FeatureSkew, LongTail, Natural
from fedagg.errors import ConfigError
from tests.data.test_partitions import binomial_range

OWNERS = np.array([7, 7, 3, 7, 3, 5, 0, 0, 0, 0])


@pytest.fixture
def owned() -> Dataset:
    x = np.arange(12, dtype=np.uint8)[:, None]
    return Dataset("owned", x[:10], np.arange(10) % 2, x[10:], [0, 1], 2, "made here", owners=OWNERS)


def test_every_owner_is_a_client():
    for seed in range(5):
        parts = Natural()(OWNERS, 4, seed)
        assert [part.tolist() for part in parts] == [[6, 7, 8, 9], [2, 4], [5], [0, 1, 3]]
        assert all(part.dtype == np.int64 for part in parts)


def test_owners_with_enough_samples():
    assert [part.tolist() for part in Natural(min_samples=3)(OWNERS, 2, 0)] == [[6, 7, 8, 9], [0, 1, 3]]
    only = {tuple(Natural(min_samples=3)(OWNERS, 1, seed)[0].tolist()) for seed in range(20)}
    assert only == {(6, 7, 8, 9), (0, 1, 3)}


def test_each_owner_is_drawn_equally_often():
    """2 of 8 owners: each is drawn Binomial(400, 0.25) times over seeds 0 .. 399; false-alarm rate 1e-6 each, 8e-6 in all."""
    owners = np.repeat(np.arange(8), np.arange(1, 9))
    times = np.bincount([int(owners[part[0]]) for seed in range(400) for part in Natural()(owners, 2, seed)], minlength=8)
    low, high = binomial_range(400, 0.25, 1e-6)
    assert low <= times.min() <= times.max() <= high


def test_the_seed_alone_decides():
    owners = np.arange(1000) % 50
    first, again, other = (Natural()(owners, 20, seed).flat.tobytes() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("partition", "clients", "says"),
    [
        (Natural(), 5, "got 5 clients, 4 owners. Lower the number of clients to 4"),
        (Natural(min_samples=2), 4, "got 4 clients, 3 owners. Lower the number of clients to 3 or lower min_samples"),
        (Natural(), 0, "number of clients >= 1; got 0"),
    ],
)
def test_more_clients_than_owners(partition, clients, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        partition(OWNERS, clients, 0)


@pytest.mark.parametrize("least", [0, 1.5, True])
def test_min_samples_is_a_number_of_samples(least):
    with pytest.raises(ConfigError, match="min_samples >= 1; got min_samples="):
        Natural(least)


def test_a_population_reads_owners(owned):
    population = Population.split(owned, Natural(min_samples=2), 3)
    assert [rows.tolist() for rows in population.indices] == [[6, 7, 8, 9], [2, 4], [0, 1, 3]]
    assert population.train(1)[0].tolist() == [[2.0], [4.0]]
    assert repr(population) == "<Population of 3 clients: owned, Natural(min_samples=2), seed 0, holdout 0.0>"
    around = Population.split(owned, FeatureSkew(Natural(min_samples=2)), 3)
    assert around.fingerprint == population.fingerprint


def test_what_the_server_keeps_is_nobodys(owned):
    population = Population.split(owned, Natural(), 2, seed=3, trusted=4)
    held = np.concatenate(list(population.indices))
    assert not set(held.tolist()) & set(population.trusted.tolist())
    for rows in population.indices:
        owner = OWNERS[rows[0]]
        assert rows.tolist() == [row for row in np.flatnonzero(owner == OWNERS) if row not in population.trusted]


def test_a_data_set_without_owners_is_refused(toy):
    with pytest.raises(ConfigError, match=re.escape("Natural(min_samples=1) needs a data set with owners; toy has none")):
        Population.split(toy, Natural(), 3)
    with pytest.raises(ConfigError, match="base that shares out by labels"):
        LongTail(Natural())
