"""A small world that many tests share: digits over six clients and a linear model."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from torch import nn

from fedagg import Clients, LocalGrid, LocalSGD, Population
from fedagg.data import IID, Dataset, digits
from fedagg.grid.base import ensure_identity
from fedagg.models import build, logistic_regression
from fedagg.params import Layout

torch.set_num_threads(1)
ensure_identity()


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return digits()


@pytest.fixture(scope="session")
def population(dataset: Dataset) -> Population:
    return Population.split(dataset, IID(), num_clients=6, seed=0)


@pytest.fixture(scope="session")
def model(dataset: Dataset) -> nn.Module:
    return build(lambda: logistic_regression(dataset.input_shape, dataset.num_classes), seed=0)


@pytest.fixture
def clients(population: Population, model: nn.Module) -> Clients:
    return Clients(population, model, LocalSGD(lr=0.1), seed=0)


@pytest.fixture
def grid(clients: Clients) -> LocalGrid:
    return LocalGrid(clients)


Ask = Callable[..., list[Message]]


@pytest.fixture
def ask(model: nn.Module) -> Ask:
    """Make the messages of a round by hand: ask(clients, round=1, kind="train")."""

    def make(clients: list[int], round: int = 1, kind: str = "train", arrays: ArrayRecord | None = None) -> list[Message]:
        layout = Layout.of_model(model)
        sent = layout.record(layout.gather(model)) if arrays is None else arrays
        content = RecordDict({"arrays": sent, "config": ConfigRecord({"server-round": round})})
        return [Message(content, dst_node_id=client, message_type=kind) for client in clients]

    return make
