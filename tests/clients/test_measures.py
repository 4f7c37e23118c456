"""What the server measures beside loss and accuracy, against a plain loop over the data."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedagg import Clients, LocalGrid, Population, Strategy, run


def test_the_class_with_the_lowest_accuracy(uneven: Population, model: nn.Module) -> None:
    clients = Clients(uneven, model, measures=["worst_class"])
    found = clients.test(clients.layout.gather(model))
    x, y = uneven.test()
    right = model(x).argmax(dim=1) == y
    assert found["accuracy_worst_class"] == min(right[y == label].float().mean().item() for label in set(y.tolist()))
    assert found["accuracy_worst_class"] < found["accuracy"] == pytest.approx(right.float().mean().item())


def test_the_objective_counts_every_client_once(uneven: Population, model: nn.Module) -> None:
    clients = Clients(uneven, model, measures=["objective"])
    losses = [functional.cross_entropy(model(x), y).item() for x, y in map(uneven.train, clients.ids)]
    everything = torch.cat([uneven.train(client)[0] for client in clients.ids])
    labels = torch.cat([uneven.train(client)[1] for client in clients.ids])
    found = clients.test(clients.layout.gather(model))["objective"]
    assert found == pytest.approx(math.fsum(losses) / len(losses), rel=1e-6)
    assert found != pytest.approx(functional.cross_entropy(model(everything), labels).item(), rel=1e-4)  # sizes differ


def test_they_are_measured_only_where_they_are_asked_for(uneven: Population, model: nn.Module) -> None:
    def recorded(**settings: Any) -> set[tuple[str, str]]:
        result = run(LocalGrid(Clients(uneven, model, **settings)), Strategy(), model, rounds=1)
        return {(split, name) for _, split, client, name, _ in result.rows if split in ("test", "train") and client is None}

    more = recorded(measures=["worst_class", "objective"]) - recorded()
    assert more == {("test", "accuracy_worst_class"), ("train", "objective")}
