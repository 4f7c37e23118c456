"""Seven clients with very uneven data, and a way to train them with either executor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from fedagg import Clients, Population
from fedagg.clients import Training
from fedagg.data import Dataset
from fedagg.params import Layout

SIZES = (33, 1, 70, 2, 32, 64, 31)
ROUND = 3


@dataclass
class Trained:
    clients: Clients
    training: Training

    @property
    def rows(self) -> Tensor:
        return self.training.block.updates[: len(self.training.client_ids)]


@pytest.fixture(scope="session")
def uneven(dataset: Dataset) -> Population:
    ends = np.cumsum((0, *SIZES))
    return Population(dataset, [np.arange(start, end) for start, end in pairwise(ends)])


Fit = Callable[..., Trained]


@pytest.fixture
def fit(uneven: Population) -> Fit:
    """fit(executor, model, local, ids=..., poison=..., population=..., ...): one round from the model's own values."""

    def train(executor: str, model: nn.Module, local: Any = None, **settings: Any) -> Trained:
        ids = settings.pop("ids", range(len(SIZES)))
        poison, population = settings.pop("poison", None), settings.pop("population", uneven)
        clients = Clients(population, model, local, seed=11, executor=executor, **settings)
        assert clients.engine.name == executor
        return Trained(clients, clients.fit(Layout.of_model(model).gather(model), ids, ROUND, poison))

    return train
