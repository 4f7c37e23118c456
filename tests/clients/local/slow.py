"""Rounds of local algorithms once more, slowly: loops over flat float64 vectors, gradients of the plain loss, one example set.

slow = Slow(population, model, lr=0.1)
for rows in slow.batches(client, round):
    y = y - slow.lr * slow.gradient(client, y, rows)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedagg import Clients, Cohort, LocalGrid, Population, Strategy, rng, run
from fedagg.clients.local import LocalTraining
from fedagg.loop import Result
from fedagg.models import build
from fedagg.params import Layout

LR, SEED, ROUNDS = 0.1, 4, 4
EXECUTORS = ("one_at_a_time", "batched")
every_executor = pytest.mark.parametrize("executor", EXECUTORS)


def smooth() -> nn.Module:
    """A small network without kinks, at which rounding would take another turn."""
    return build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10)), seed=2)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


class Slow:
    """Data and gradients of the clients of one run."""

    def __init__(self, population: Population, model: nn.Module, batch_size: int = 32) -> None:
        self.population, self.batch_size = population, batch_size
        self.model = copy.deepcopy(model).double().train()
        self.start = flat(self.model)

    def batches(self, client: int, round: int, purpose: str = "batches") -> Iterator[Tensor]:
        m = len(self.population.train(client)[1])
        return iter(torch.randperm(m, generator=rng.generator(SEED, purpose, round, client)).split(self.batch_size))

    def load(self, vector: Tensor) -> nn.Module:
        start = 0
        for parameter in self.model.parameters():
            parameter.data = vector[start : start + parameter.numel()].view(parameter.shape).clone()
            start += parameter.numel()
        return self.model

    def loss(self, client: int, rows: Tensor) -> Tensor:
        x, y = self.population.train(client)
        return cross_entropy(self.model(x[rows].double()), y[rows])

    def gradient(self, client: int, vector: Tensor, rows: Tensor) -> Tensor:
        self.load(vector)
        return self.slope(self.loss(client, rows))

    def slope(self, loss: Tensor) -> Tensor:
        return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(self.model.parameters()))])


@dataclass
class Run:
    """What a run of the engine came to.

    Args:
        result: of ``fedagg.run``.
        cohorts: the clients of each round whose replies were used.
        grid: with what clients remember.
        strategy: with its state.
        layout: of the model.
    """

    result: Result
    cohorts: list[list[int]]
    grid: LocalGrid
    strategy: Strategy
    layout: Layout

    @property
    def params(self) -> Tensor:
        return self.layout.read(self.result.arrays).params

    def remembered(self, name: str) -> dict[int, Tensor]:
        saved = self.grid.state_dict()["memory"][name]
        return dict(zip(saved["clients"], saved["rows"], strict=True))


def go(
    population: Population,
    model: nn.Module,
    local: LocalTraining,
    strategy: Strategy | None = None,
    executor: str = "one_at_a_time",
    rounds: int = ROUNDS,
    **settings: Any,
) -> Run:
    """Run ``strategy``, by default the mean over four of the clients a round."""
    strategy, cohorts = strategy or Strategy(cohort=4, seed=SEED), list[list[int]]()
    aggregate = strategy.aggregate

    def noted(cohort: Cohort) -> Tensor:
        cohorts.append(list(cohort.client_ids))
        return aggregate(cohort)

    strategy.aggregate = noted  # type: ignore[method-assign]
    clients = Clients(population, model, local, seed=SEED, executor=executor)
    assert clients.engine.name == executor, clients.engine.why
    grid = LocalGrid(clients)
    result = run(grid, strategy, model, rounds, seed=SEED, evaluate_every=rounds, **settings)
    return Run(result, cohorts, grid, strategy, clients.layout)


def close(found: Tensor, wanted: Tensor) -> None:
    """Equal but for what float32 does in a few dozen steps: 1e-5 of the length."""
    assert (found.double() - wanted).norm() <= 1e-5 * wanted.norm()


def close_each(found: Mapping[int, Tensor], wanted: Mapping[int, Tensor]) -> None:
    assert sorted(found) == sorted(wanted)
    for client, vector in found.items():
        close(vector, wanted[client])


def mean(vectors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(vectors)).mean(dim=0)
