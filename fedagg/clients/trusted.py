"""Examples that the server holds itself, and what they tell it about a round."""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import Tensor

from fedagg.clients.clients import Clients
from fedagg.cohort import Trusted
from fedagg.data import Population
from fedagg.errors import ConfigError, FedaggError
from fedagg.params import ModelState, State


class TrustedExamples:
    """The server's own client: it trains on the examples that the population leaves to the server.

    It trains as clients do, for as many epochs as bring it closest to the number of steps of the client of median size.

    Args:
        clients: the clients of the run; their population must leave the server some examples.
    """

    def __init__(self, clients: Clients) -> None:
        population, local = clients.population, copy.copy(clients.local)
        if not len(population.trusted):
            raise ConfigError("the server holds no examples of its own; raise trusted (100 is usual)")

        def steps(examples: int) -> int:
            return len(clients.local.batches(examples, torch.Generator()))

        middle = int(population.num_examples[list(population.holders)].median())
        epochs = round(local.epochs * steps(middle) / steps(len(population.trusted)))
        object.__setattr__(local, "epochs", max(1, epochs))
        self._clients = Clients(
            Population(population.dataset, [population.trusted]),
            clients.model,
            local,
            seed=clients.seed,
            device=str(clients.device),
            executor="one_at_a_time",
        )

    def __call__(self, state: State, round: int) -> Trusted:
        """Return what the examples say in one round, in which clients are sent ``state``."""
        x, y = self._clients.population.train(0)
        params = state.params

        @cache
        def root_update() -> Tensor:
            done = self._clients.fit(state, [0], round)
            if done.errors:
                raise FedaggError(f"training on the server's own examples failed in round {round}:\n{done.errors[0].detail}")
            return done.block.updates[0].clone()

        def loss(step: Tensor) -> float:
            moved = ModelState(params + step.to(params), state.float_buffers, state.int_buffers)
            return self._clients.engine.executor.evaluate(moved, x, y)["loss"]

        return Trusted(root_update, loss)
