"""All clients of a population: their data, the model they train, and how they train it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from fedagg import rng
from fedagg.clients.choice import choose, resolve_device
from fedagg.clients.data import examples
from fedagg.clients.executor import Block, Job
from fedagg.clients.local import LocalSGD, LocalTraining
from fedagg.clients.memory import Kept
from fedagg.data import Population
from fedagg.errors import ClientError
from fedagg.params import Layout, State, Update
from fedagg.rows import RowBuffer

Poison = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass
class Training:
    """What a cohort sends after training: row i of ``block`` belongs to ``client_ids[i]``.

    Args:
        block: the rows; there may be more of them than clients answered.
        client_ids: ascending.
        num_examples: examples each client trained on.
        metrics: what each client reports beside them.
        finite: whether each client's row is.
        kept: name -> [k, d], what each client will remember, where local training keeps something.
        errors: client id -> what went wrong, for clients that raised; they have no row.
    """

    block: Block
    client_ids: list[int] = field(default_factory=list)
    num_examples: list[int] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    finite: list[bool] = field(default_factory=list)
    kept: Kept = field(default_factory=dict)
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
        device: where to compute: cpu, cuda, cuda:N, or auto for a GPU where there is one.
        executor: one_at_a_time, batched, or auto for the quicker one on this device.
        precision: what forward passes compute in, float32 or bfloat16; everything that is kept is float32 either way.
        batch: clients that ``batched`` trains at once; None takes as many as a share of the memory holds.
        at_most: the largest batch that None may come to; by default there is no other bound than N.

    Attributes:
        engine: the executor that was chosen, and why.
    """

    def __init__(
        self,
        population: Population,
        model: nn.Module,
        local: LocalTraining | None = None,
        *,
        seed: int = 0,
        device: str = "cpu",
        executor: str = "auto",
        precision: str = "float32",
        batch: int | None = None,
        at_most: int | None = None,
    ) -> None:
        self.population, self.model, self.local, self.seed = population, model, local or LocalSGD(), seed
        engine: dict[str, Any] = {"executor": executor, "precision": precision, "batch": batch, "at_most": at_most}
        self._settings = {"seed": seed, "device": device, **engine}
        self.device = resolve_device(device)
        self.engine = choose(population, model, self.local, self.device, **engine)
        self.layout: Layout = self.engine.executor.layout
        self._examples = examples(population, self.device)
        self._rows = RowBuffer()
        self.ids = population.holders

    def made_again(self, **changes: Any) -> Callable[[], Clients]:
        """Return a function that makes these clients again, perhaps in another process, with some of the settings changed."""
        return partial(type(self), self.population, self.model, self.local, **{**self._settings, **changes})

    def __reduce__(self) -> tuple[Callable[[], Clients], tuple[()]]:
        return self.made_again(), ()  # a model that lives in flat vectors cannot be pickled as such

    def fit(
        self,
        state: State,
        client_ids: Sequence[int],
        round: int,
        poison: Mapping[int, Poison] | None = None,
        kept: Mapping[str, Tensor] | None = None,
    ) -> Training:
        """Train every client of a cohort from ``state``. What they send lies where ``state`` does.

        Args:
            state: the model they receive.
            client_ids: ascending.
            round: number of the round, from 1.
            poison: client id -> what an attacker does to that client's data before it trains.
            kept: name -> [n, d], what each client remembers; None is nothing yet. Not modified.
        """

        def job(client: int, x: Tensor, y: Tensor) -> Job:
            if poison and client in poison:
                x, y = poison[client](x, y)
            order = rng.generator(self.seed, "batches", round, client)
            return Job(x, y, order, noise=rng.derive(self.seed, "dropout", round, client))

        def jobs(clients: Sequence[int]) -> list[Job]:
            return [job(client, x, y) for client, (x, y) in zip(clients, self._examples(clients), strict=True)]

        base = state.params
        rows = self._rows.take(len(client_ids), self.layout.size(), base.dtype, base.device)
        result = Training(Block.over(rows, base, self.layout))
        with rng.kept_torch():  # a layer that draws at random, other than dropout, uses the global generators
            for done in self.engine.executor.train(state, self.local, client_ids, jobs, result.block):
                if done.metrics is None:
                    result.errors[done.client] = ClientError(done.client, round, "train", done.error)
                    continue
                result.client_ids.append(done.client)
                result.num_examples.append(done.num_examples)
                result.metrics.append(done.metrics)
                result.finite.append(done.finite)
        if self.local.keeps:
            self._send(result, [client_ids.index(client) for client in result.client_ids], kept)
        return result

    def _send(self, result: Training, places: list[int], kept: Mapping[str, Tensor] | None) -> None:
        """Let clients that remember decide what they send; whoever ends up with no finite row remembers what it did."""
        rows = result.block.updates[: len(places)]
        before = {name: torch.zeros_like(rows) if kept is None else kept[name][places] for name in self.local.keeps}
        result.kept = {name: values.clone() for name, values in before.items()}
        self.local.send(rows, result.kept)
        result.finite = [good and Update.checked(row).finite for good, row in zip(result.finite, rows, strict=True)]
        for i, good in enumerate(result.finite):
            if not good:
                for name, values in before.items():
                    result.kept[name][i] = values[i]

    def evaluate(self, state: State, client_ids: Sequence[int], round: int) -> Evaluation:
        """Evaluate ``state`` on what every client of a cohort holds out; clients that hold nothing out are left out."""
        result = Evaluation()
        for client in client_ids:
            try:
                x, y = self.population.validation(client)
                metrics = self.engine.executor.evaluate(state, x, y)
            except Exception:
                result.errors[client] = ClientError(client, round, "evaluate", traceback.format_exc())
                continue
            if len(y):
                result.client_ids.append(client)
                result.num_examples.append(len(y))
                result.metrics.append(metrics)
        return result

    def test(self, state: State) -> dict[str, float]:
        """Return loss and accuracy of ``state`` on the server's test set."""
        return self.engine.executor.evaluate(state, *self._test_set)

    def attack_success(self, state: State, trigger: Callable[[Tensor], Tensor], target: int) -> float:
        """Return how often a backdoor works: of the test examples of other classes, once stamped by ``trigger``, the share
        that ``state`` takes for class ``target``; NaN where the test set holds no other class."""
        x, y = self._test_set
        x = trigger(x[y != target])
        return self.engine.executor.evaluate(state, x, y.new_full((len(x),), target))["accuracy"]

    @cached_property
    def _test_set(self) -> tuple[Tensor, Tensor]:
        x, y = self.population.test()
        return x.to(self.device), y.to(self.device)
