"""All clients of a population: their data, the model they train, and how they train it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from fedagg import rng
from fedagg.clients.executor import OneAtATime
from fedagg.clients.local import LocalSGD
from fedagg.data import Population
from fedagg.errors import ClientError, ConfigError
from fedagg.params import Layout, ModelState

Poison = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass
class Training:
    """What a cohort sends after training: row i of the block belongs to ``client_ids[i]``.

    Args:
        client_ids: ascending.
        states: one model per client; their parameters are rows of one [n, d] matrix.
        num_examples: examples each client trained on.
        metrics: what each client reports beside them.
        errors: client id -> what went wrong, for clients that raised; they have no row.
    """

    client_ids: list[int] = field(default_factory=list)
    states: list[ModelState] = field(default_factory=list)
    num_examples: list[int] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    errors: dict[int, ClientError] = field(default_factory=dict)


@dataclass
class Evaluation:
    """What a cohort reports after evaluating a model on data it did not train on."""

    client_ids: list[int] = field(default_factory=list)
    num_examples: list[int] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    errors: dict[int, ClientError] = field(default_factory=dict)


class Clients:
    """The clients of a simulation.

    Everything random in a client's training comes from the seed tree at (seed, round, client): it does not matter where,
    when or beside whom a client runs.

    Args:
        population: who holds which data.
        model: the architecture that is trained; its values are not used.
        local: local training.
        seed: the run's seed.
        device: where to compute, as torch names it.
    """

    def __init__(
        self, population: Population, model: nn.Module, local: LocalSGD | None = None, *, seed: int = 0, device: str = "cpu"
    ) -> None:
        self.population, self.model, self.local, self.seed, self.device = population, model, local or LocalSGD(), seed, device
        try:
            self._executor = OneAtATime(model, torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"engine.device={device} cannot be used here: {error}") from error
        self.layout: Layout = self._executor.layout
        counts = population.num_examples
        self.ids = [client for client in range(len(population)) if int(counts[client]) > 0]

    def fit(
        self, state: ModelState, client_ids: Sequence[int], round: int, poison: Mapping[int, Poison] | None = None
    ) -> Training:
        """Train every client of a cohort from ``state``.

        Args:
            state: the model they receive.
            client_ids: ascending.
            round: number of the round, from 1.
            poison: client id -> what an attacker does to that client's data before it trains.
        """
        result = Training()
        rows = torch.empty(len(client_ids), self.layout.size(), dtype=self.layout.dtype())
        with rng.kept_torch():  # dropout draws from the global generators
            for row, client in zip(rows, client_ids, strict=True):
                into = self.layout.empty(row)
                try:
                    x, y = self.population.train(client)
                    if poison and client in poison:
                        x, y = poison[client](x, y)
                    rng.seed_torch(rng.derive(self.seed, "dropout", round, client))
                    order = rng.generator(self.seed, "batches", round, client)
                    metrics = self._executor.train(state, self.local, x, y, order, into)
                except Exception:
                    result.errors[client] = ClientError(client, round, "train", traceback.format_exc())
                    continue
                result.client_ids.append(client)
                result.states.append(into)
                result.num_examples.append(len(y))
                result.metrics.append(metrics)
        return result

    def evaluate(self, state: ModelState, client_ids: Sequence[int], round: int) -> Evaluation:
        """Evaluate ``state`` on what every client of a cohort holds out; clients that hold nothing out are left out."""
        result = Evaluation()
        for client in client_ids:
            try:
                x, y = self.population.validation(client)
                metrics = self._executor.evaluate(state, x, y)
            except Exception:
                result.errors[client] = ClientError(client, round, "evaluate", traceback.format_exc())
                continue
            if len(y):
                result.client_ids.append(client)
                result.num_examples.append(len(y))
                result.metrics.append(metrics)
        return result

    def test(self, state: ModelState) -> dict[str, float]:
        """Return loss and accuracy of ``state`` on the server's test set."""
        return self._executor.evaluate(state, *self._test_set)

    @cached_property
    def _test_set(self) -> tuple[Tensor, Tensor]:
        return self.population.test()
