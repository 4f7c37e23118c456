import tracemalloc

import numpy as np
import pytest
import torch

from fedagg.data import IID, Dataset, Dirichlet, KClasses, Population, Shards, digits
from fedagg.errors import ConfigError

PARTITIONS = [IID(), Dirichlet(0.5), KClasses(2), Shards(2)]


def numbers(x):
    """Row numbers of the toy data set, from its features."""
    return (x[:, 0] * 2 + 1).round().int().tolist()


@pytest.mark.parametrize("partition", PARTITIONS, ids=str)
@pytest.mark.parametrize("holdout", [0.0, 0.3])
def test_every_row_is_trained_on_or_held_out_exactly_once(toy, partition, holdout):
    population = Population.split(toy, partition, num_clients=6, seed=2, holdout=holdout)
    rows = []
    for client in range(len(population)):
        (x, y), (xv, yv) = population.train(client), population.validation(client)
        assert x.dtype == xv.dtype == torch.float32
        assert y.dtype == yv.dtype == torch.int64
        mine = numbers(x) + numbers(xv)
        assert sorted(mine) == sorted(population.indices[client].tolist())
        assert [number % 4 for number in mine] == y.tolist() + yv.tolist()
        assert len(y) == population.num_examples[client]
        assert len(y) + len(yv) == population.sizes[client]
        assert torch.equal(torch.bincount(y, minlength=4), population.label_counts[client])
        rows += mine
    assert sorted(rows) == list(range(120))
    assert torch.equal(population.label_counts.sum(dim=1), population.num_examples)
    assert population.label_counts.shape == (6, 4)


@pytest.mark.parametrize(
    ("size", "holdout", "kept"), [(10, 0.2, 8), (3, 0.2, 2), (2, 0.2, 2), (1, 0.9, 1), (4, 0.9, 1), (5, 0.1, 4)]
)
def test_one_training_sample_stays(toy, size, holdout, kept):
    population = Population(toy, [np.arange(size)], holdout=holdout)
    assert population.num_examples.tolist() == [kept]
    assert len(population.validation(0)[1]) == size - kept


def test_the_held_out_rows_depend_on_seed_and_client_alone(toy):
    def held_out(population, client):
        return numbers(population.validation(client)[0])

    parts = [np.arange(40), np.arange(40, 80), np.arange(80, 120)]
    first = Population(toy, parts, holdout=0.25, seed=1)
    assert held_out(first, 1) == held_out(Population(toy, [[], parts[1]], holdout=0.25, seed=1), 1)
    assert held_out(first, 1) != held_out(Population(toy, parts, holdout=0.25, seed=2), 1)
    assert held_out(first, 0) != [number - 40 for number in held_out(first, 1)]


def test_the_same_call_gives_the_same_population_and_no_global_generator_moves(toy):
    before = torch.get_rng_state()
    first = Population.split(toy, Dirichlet(0.5), 8, seed=5, holdout=0.2)
    assert first.fingerprint == Population.split(toy, Dirichlet(0.5), 8, seed=5, holdout=0.2).fingerprint
    others = [Population.split(toy, Dirichlet(0.5), 8, seed=6, holdout=0.2), Population.split(toy, Dirichlet(0.5), 8, seed=5)]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 3
    assert torch.equal(before, torch.get_rng_state())


def test_split_hands_its_seed_to_the_partition():
    data = digits()
    population = Population.split(data, Dirichlet(0.5), 10, seed=42)
    for left, right in zip(population.indices, Dirichlet(0.5)(data.y_train, 10, 42), strict=True):
        np.testing.assert_array_equal(left, right)
    assert population.partition == Dirichlet(0.5)


def test_test_set(toy):
    x, y = Population.split(toy, IID(), 3).test()
    assert numbers(x) == list(range(120, 130))
    assert y.tolist() == [number % 4 for number in range(120, 130)]
    x.zero_()
    assert numbers(Population.split(toy, IID(), 3).test()[0]) == list(range(120, 130))


def test_training_on_the_rows_leaves_the_data_alone(toy):
    population = Population.split(toy, IID(), 3)
    x, y = population.train(0)
    want = x.clone(), y.clone()
    x.mul_(0)
    y.mul_(0)
    again = population.train(0)
    assert torch.equal(again[0], want[0])
    assert torch.equal(again[1], want[1])


# Empty clients


def test_empty_clients_come_with_min_size_0_only():
    data = digits()
    population = Population.split(data, Dirichlet(0.01, min_size=0), num_clients=60, seed=0)
    summary = population.summary()
    assert summary["empty_clients"] == (population.num_examples == 0).sum() > 0
    assert summary["size_min"] == 0
    assert "of them empty" in str(population)
    client = int(population.num_examples.argmin())
    x, y = population.train(client)
    assert x.shape == (0, 1, 8, 8)
    assert y.shape == (0,)

    def careless(labels, num_clients, seed):
        return [np.arange(len(labels)), *[np.array([], dtype=np.int64)] * (num_clients - 1)]

    with pytest.raises(ConfigError, match="careless must give every client a sample; 4 of 5 have none, the first is client 1"):
        Population.split(data, careless, num_clients=5)
    careless.min_size = 0
    assert Population.split(data, careless, num_clients=5).sizes.tolist() == [1438, 0, 0, 0, 0]


def test_held_out_rows_do_not_make_a_client_empty(toy):
    population = Population(toy, [[0], [1, 2], []], holdout=0.99)
    assert population.num_examples.tolist() == [1, 1, 0]


# What is refused


@pytest.mark.parametrize(
    ("indices", "holdout", "says"),
    [
        ([[0, 1], [120]], 0, "client 1 needs rows in 0 .. 119; got 120 .. 120"),
        ([[-1]], 0, "client 0 needs rows in 0 .. 119"),
        ([[3, 3, 4]], 0, "client 0 needs every row once; got 1 repeated"),
        ([[0.5]], 0, "list of row numbers; got float64"),
        ([[[1], [2]]], 0, "list of row numbers"),
        ([[], []], 0, "got 2 clients, all empty"),
        ([], 0, "got 0 clients"),
        ([[1]], 1.0, "holdout must be"),
        ([[1]], -0.1, "holdout must be"),
    ],
)
def test_impossible_populations_are_refused(toy, indices, holdout, says):
    with pytest.raises(ConfigError, match=says):
        Population(toy, indices, holdout=holdout)


def test_a_partition_must_keep_the_number_of_clients(toy):
    with pytest.raises(ConfigError, match="must return 3 index arrays, one a client; got 1"):
        Population.split(toy, lambda labels, num_clients, seed: [np.arange(5)], 3)


@pytest.mark.parametrize("client", [-1, 3])
def test_unknown_clients_are_refused(toy, client):
    population = Population.split(toy, IID(), 3)
    for ask in (population.train, population.validation):
        with pytest.raises(IndexError, match=f"client ids are 0 .. 2; got {client}"):
            ask(client)


# Text and cost


def test_text(toy):
    population = Population(toy, [range(10), range(10, 40), range(40, 120)], holdout=0.5)
    assert population.summary() == {
        "clients": 3,
        "samples": 120,
        "held_out": 60,
        "size_min": 10,
        "size_median": 30.0,
        "size_max": 80,
        "empty_clients": 0,
        "classes_median": 4.0,
    }
    assert str(population) == "3 clients with 10 to 80 samples (median 30) of toy"
    assert str(Population.split(toy, IID(), 4)) == "4 clients with 30 samples each of toy"
    assert repr(Population.split(toy, IID(), 4)) == "<Population of 4 clients: toy, IID(), seed 0, holdout 0.0>"


def test_a_large_population_costs_indices_not_floats():
    """60,000 pictures are 47 MB and would be 188 MB as floats; a population and one client's rows take less than 8 MB."""
    x = np.zeros((60000, 1, 28, 28), dtype=np.uint8)
    data = Dataset("blank", x, np.arange(60000) % 10, x[:10], np.arange(10), 10, "zeros")
    tracemalloc.start()
    try:
        population = Population.split(data, Dirichlet(0.5), num_clients=100, holdout=0.2)
        population.train(0)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    assert np.shares_memory(data.x_train, x)
