"""A training set that lies beside the model gives the very numbers that the population gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedagg import Population
from fedagg.clients.data import ResidentData, examples
from fedagg.data import Dataset

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["uint8", "int16", "int64", "float32", "float64", "bool"])
def test_the_numbers_are_those_of_the_population(kind: str) -> None:
    draw = np.random.default_rng(4)
    x = (draw.random((40, 2, 3)) * 250).astype(kind)
    shift, scale = draw.random((2, 3)), draw.random((2, 1)) + 0.3
    data = Dataset("made", x, draw.integers(0, 4, 40), x[:2], [0, 1], 4, "here", shift=shift, scale=scale)
    population = Population(data, [np.array([5, 3, 20]), np.array([1]), np.arange(10, 39)], holdout=0.3)
    clients = [2, 0, 1]
    gathered = ResidentData(population, CPU)(clients, [None] * 3)
    for (x, y), client in zip(gathered, clients, strict=True):
        expected_x, expected_y = population.train(client)
        assert x.dtype == torch.float32
        assert torch.equal(x, expected_x)
        assert torch.equal(y, expected_y)
    assert len({x.untyped_storage().data_ptr() for x, _ in gathered}) == 1


def test_the_data_set_stays_as_it_is(uneven: Population) -> None:
    before = uneven.dataset.x_train.copy()
    source = ResidentData(uneven, CPU)
    first, again = source([1], [None])[0][0], source([1], [None])[0][0]
    assert torch.equal(first, again)
    assert np.array_equal(uneven.dataset.x_train, before)


def test_on_a_cpu_the_population_is_asked(uneven: Population) -> None:
    assert not isinstance(examples(uneven, CPU), ResidentData)
    (x, y), _ = examples(uneven, CPU)([3, 0], [None, None])
    assert torch.equal(x, uneven.train(3)[0])
    assert torch.equal(y, uneven.train(3)[1])


class Own(Population):
    """One that makes its own features, and knows nothing of chosen ones."""

    def train(self, client_id: int) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        x, y = super().train(client_id)
        return -x, y


@pytest.mark.parametrize("kind", ["population", "resident", "own"])
def test_chosen_examples_are_those_of_all(uneven: Population, kind: str) -> None:
    population = Own(uneven.dataset, uneven.indices) if kind == "own" else uneven
    source = ResidentData(population, CPU) if kind == "resident" else examples(population, CPU)
    wanted = [torch.tensor([2, 0]), None]
    large = int(population.num_examples.argmax())
    (x, y), whole = source([large, 0], wanted)
    expected_x, expected_y = population.train(large)
    assert torch.equal(x, expected_x[[2, 0]])
    assert torch.equal(y, expected_y[[2, 0]])
    assert len(whole[1]) == len(population.train(0)[1])
