"""All clients of a population: their data, the model they train, and how they train it."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from torch import Tensor, nn

from fedagg.clients.choice import choose, resolve_device
from fedagg.clients.data import Chosen, examples
from fedagg.clients.executor import Block
from fedagg.clients.local import LocalSGD, LocalTraining
from fedagg.clients.training import CohortTraining, Poison, Training
from fedagg.data import Population
from fedagg.errors import ClientError
from fedagg.params import Layout, ModelState, State
from fedagg.rows import RowBuffer


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
        reports: see ``report``.
        measures: what ``test`` returns beside loss and accuracy.

    Attributes:
        engine: the executor that was chosen, and why.
        model: what local training makes of ``model``, most often itself.
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
        reports: Iterable[str] = (),
        measures: Iterable[str] = (),
    ) -> None:
        local = local or LocalSGD()
        self.model = model = local.trains(model, seed)
        self.population, self.seed = population, seed
        self.local = local.prepared(model, Layout.of_model(model))
        engine: dict[str, Any] = {"executor": executor, "precision": precision, "batch": batch, "at_most": at_most}
        self._settings: dict[str, Any] = {"seed": seed, "device": device, **engine}
        self.report(reports)
        self._settings["measures"] = self.measures = frozenset(measures)
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

    def report(self, names: Iterable[str]) -> None:
        """Let every client report more of itself beside its update.

        Args:
            names: "label_counts", how many examples of each class it trained on; "loss_before", the mean loss on these of the
                model it received; "a_norm", how its steps add up gradients.

        Raises:
            ConfigError: local training does not know its "a_norm".
        """
        self._settings["reports"] = self.reports = frozenset(names)
        if "a_norm" in self.reports:
            self.local.a_norm(1)

    def fit(
        self,
        state: State,
        client_ids: Sequence[int],
        round: int,
        poison: Mapping[int, Poison] | None = None,
        kept: Mapping[str, Tensor] | None = None,
        received: Mapping[str, Tensor] | None = None,
    ) -> Training:
        """Train every client of a cohort from ``state``. What they send lies where ``state`` does.

        Args:
            state: the model they receive.
            client_ids: ascending.
            round: number of the round, from 1.
            poison: client id -> what an attacker does to that client's data before it trains.
            kept: name -> [n, L], what each client remembers; None is nothing yet. Not modified.
            received: name -> [L], what the server sends beside the model.

        Raises:
            ConfigError: the server does not send what local training needs.
        """
        work = CohortTraining(self, state, client_ids, round, poison or {}, kept, received or {})
        rows = self._rows.take(len(client_ids), self.layout.size(), state.params.dtype, state.params.device)
        return work.done(Block.over(rows, state.params, self.layout))

    def examples(self, client_ids: Sequence[int], chosen: Chosen | None = None) -> list[tuple[Tensor, Tensor]]:
        """Return what these clients train on, features [m, ...] float32 and classes [m] int64 of each.

        Args:
            client_ids: whose.
            chosen: for each of them which of its m examples, [m'] int64, or None for all.
        """
        return self._examples(client_ids, chosen or [None] * len(client_ids))

    def evaluate(
        self, state: State, client_ids: Sequence[int], round: int, kept: Mapping[str, Tensor] | None = None
    ) -> Evaluation:
        """Evaluate ``state``, or what clients make of it, on what every client of a cohort holds out.

        Clients that hold nothing out are left out.

        Args:
            state: the model they receive.
            client_ids: ascending.
            round: number of the round.
            kept: see ``fit``.
        """
        result = Evaluation()
        for i, client in enumerate(client_ids):
            try:
                x, y = self.population.validation(client)
                metrics = self.engine.executor.evaluate(self._own(state, i, kept), x, y)
            except Exception:
                result.errors[client] = ClientError(client, round, "evaluate", traceback.format_exc())
                continue
            if len(y):
                result.client_ids.append(client)
                result.num_examples.append(len(y))
                result.metrics.append(metrics)
        return result

    def _own(self, state: State, i: int, kept: Mapping[str, Tensor] | None) -> State:
        """Return the model that the i-th client evaluates."""
        if not self.local.personalises:
            return state
        params, buffers = state.params.clone()[None], state.float_buffers.clone()[None]
        mine = {
            name: (value[None] if kept is None else kept[name][i : i + 1]) for name, value in self.local.first(state).items()
        }
        self.local.evaluates(params, buffers, mine)
        return ModelState(params[0], buffers[0], state.int_buffers)

    def test(self, state: State) -> dict[str, float]:
        """Return loss and accuracy of ``state`` on the server's test set.

        With "worst_class" among ``measures`` also ``accuracy_worst_class``, on the class where it is lowest; with "objective"
        ``objective``, the mean over all clients, each counted once, of their mean losses on what they train on.
        """
        executor, (x, y) = self.engine.executor, self._test_set
        metrics = executor.evaluate(state, x, y)
        if "worst_class" in self.measures:
            of_classes = [executor.evaluate(state, x[y == label], y[y == label])["accuracy"] for label in y.unique()]  # type: ignore[no-untyped-call]
            metrics["accuracy_worst_class"] = min(of_classes, default=math.nan)
        if "objective" in self.measures:
            losses = [executor.evaluate(state, *self.examples([client])[0])["loss"] for client in self.ids]
            metrics["objective"] = math.fsum(losses) / len(losses)
        return metrics

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
