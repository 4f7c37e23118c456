import hashlib
import tracemalloc

import numpy as np
import pytest
import torch

from fedagg import compact, rng
from fedagg.compact import CSR
from fedagg.data import IID, Dataset, Dirichlet, KClasses, Population, Shards, Views, digits
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


@pytest.mark.parametrize("block", [1, 30, compact.BLOCK])
@pytest.mark.parametrize("holdout", [0.0, 0.25, 0.9])
def test_everything_derived_is_as_defined(toy, holdout, block, monkeypatch):
    """The definitions client by client in plain Python; they also keep the fingerprints of runs that exist."""
    monkeypatch.setattr(compact, "BLOCK", block)
    parts = [[], list(range(90, 50, -1)), [7], [], [3, 1], list(range(20)), []]
    digest, counts = hashlib.sha256(), []
    population = Population(toy, parts, holdout=holdout, seed=4)
    for client, rows in enumerate(parts):
        count = max(0, min(int(holdout * len(rows) + 0.5), len(rows) - 1))
        drawn = rng.numpy_generator(4, "holdout", client).permutation(len(rows))[:count] if count else []
        held = [row for place, row in enumerate(rows) if place in drawn]
        kept = [row for place, row in enumerate(rows) if place not in drawn]
        assert population.rows(client).tolist() == kept
        assert numbers(population.train(client)[0]) == kept
        assert numbers(population.validation(client)[0]) == held
        counts.append([sum(row % 4 == label for row in kept) for label in range(4)])
        digest.update(f"{len(kept)} {len(held)}\n".encode() + np.array(kept + held, dtype="<i8").tobytes())
    assert population.fingerprint == digest.hexdigest()
    assert population.label_counts.tolist() == counts
    assert population.num_examples.tolist() == [sum(row) for row in counts]
    assert population.sizes.tolist() == [0, 40, 1, 0, 2, 20, 0]
    assert population.summary()["held_out"] == 63 - sum(map(sum, counts))
    assert {array.dtype for array in (population.sizes, population.num_examples, population.label_counts)} == {torch.int64}


def test_a_csr_is_the_same_population_as_a_list(toy):
    parts = [[4, 2], [], [100, 5, 6]]
    flat = np.array([4, 2, 100, 5, 6], dtype=np.int32)
    population = Population(toy, CSR(flat, np.array([0, 2, 2, 5])), holdout=0.5, seed=1)
    assert population.fingerprint == Population(toy, parts, holdout=0.5, seed=1).fingerprint
    assert [rows.tolist() for rows in population.indices] == parts
    assert np.shares_memory(population.indices.flat, flat)
    again = Population(toy, population.indices)
    assert np.shares_memory(again.indices.flat, flat)
    assert Population(toy, CSR(flat.astype(np.uint64), np.array([0, 2, 2, 5])), 0.5, 1).fingerprint == population.fingerprint
    with pytest.raises(ValueError, match="read-only"):
        population.indices[0][0] = 1


def test_holders_are_the_clients_with_data(toy):
    assert Population(toy, [[0], [1], [2]]).holders == range(3)
    holders = Population(toy, [[], [1], [], [2, 3], []], holdout=0.9).holders
    assert list(holders) == [1, 3]
    assert [client in holders for client in range(-1, 6)] == [False, False, True, False, True, False, False]


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
        ([[0], [], [5], [1, 3, 130, 125]], 0, "client 3 needs rows in 0 .. 119; got 1 .. 130"),
        ([[2**63 + 7]], 0, "client 0 needs rows in 0 .. 119"),
        ([[0], [], [7, 9, 7, 9, 7], [5, 5]], 0, "client 2 needs every row once; got 3 repeated"),
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
@pytest.mark.parametrize("block", [1, compact.BLOCK])
def test_impossible_populations_are_refused(toy, indices, holdout, says, block, monkeypatch):
    monkeypatch.setattr(compact, "BLOCK", block)
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


def test_a_client_costs_its_indices_and_little_more():
    """32 samples of 4 bytes and an offset of 8 are 136 bytes; what is asked for on the way is not kept."""
    data = Dataset(
        "blank", np.zeros((60000, 1), np.uint8), np.arange(60000) % 10, np.zeros((1, 1), np.uint8), [0], 10, "zeros"
    )
    clients = 50_000
    tracemalloc.start()
    try:
        population = Population.split(data, Views(32), clients)
        assert population.holders == range(clients)
        assert population.label_counts.sum() == population.num_examples.sum() == population.sizes.sum() == 32 * clients
        assert len(population.fingerprint) == 64
        assert population.summary()["samples"] == 32 * clients
        assert tracemalloc.get_traced_memory()[0] < 150 * clients
    finally:
        tracemalloc.stop()
