"""Rounds: drive any Flower strategy over any Flower Grid, one step at a time, and tell callbacks what happened."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result as FlowerResult
from flwr.serverapp.strategy import Strategy as FlowerStrategy
from torch import nn

from fedagg import rng
from fedagg.checkpoint import Checkpoint, Checkpoints
from fedagg.clients import Clients
from fedagg.clients.app import bytes_of_arrays, metric_record, records_of
from fedagg.contracts import REPORTS
from fedagg.errors import FedaggError
from fedagg.fitting import check_attack, check_halves
from fedagg.grid.adversary import Adversary
from fedagg.grid.base import SimulationGrid, WorldGrid, ensure_identity, known, layers
from fedagg.params import Layout, ModelRecord
from fedagg.saving import Unsavable, restore, state_of
from fedagg.strategy import Strategy
from fedagg.trust import trust

logger = logging.getLogger(__name__)
Row = tuple[int, str, int | None, str, float]
Evaluate = Callable[[ArrayRecord], dict[str, float]]
REPORTED_BY_SERVER = ("clients", "rejected", "not_finite", "too_few")


@dataclass
class Round:
    """What one round produced.

    Args:
        round: its number; 0 is the initial model.
        arrays: the global model after it.
        rows: the metrics as tidy rows (round, split, client, metric, value); ``client`` is None for aggregates.
        seconds: wall-clock time by phase; kept apart because it differs between equal runs.
    """

    round: int
    arrays: ArrayRecord
    rows: list[Row] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def value(self, split: str, metric: str) -> float | None:
        """Return one aggregate of this round, None where it was not measured."""
        return next((v for _, s, client, m, v in self.rows if (s, client, m) == (split, None, metric)), None)


class Callback:
    """Something that watches a run. Override what you need.

    One that must remember something over a crash has ``state_dict()`` and ``load_state_dict(state)``: what the first returned
    with a checkpoint, the second gets when the run goes on from it.
    """

    paused: bool = False  # True breaks the run off after this round, with a checkpoint to go on from later

    def round_finished(self, done: Round) -> bool | None:
        """Look at a finished round; return True to end the run with it."""


@dataclass
class Result:
    """The outcome of a run.

    Args:
        arrays: the final global model.
        rows: the metrics of all rounds, tidy.
        rounds: how many rounds were run.
        stopped_early: whether a callback ended the run.
    """

    arrays: ArrayRecord
    rows: list[Row]
    rounds: int
    stopped_early: bool = False

    def series(self, metric: str = "accuracy", split: str = "test") -> list[tuple[int, float]]:
        """Return one aggregate over the rounds as (round, value)."""
        return [(r, value) for r, s, client, m, value in self.rows if (s, client, m) == (split, None, metric)]

    def last(self, metric: str = "accuracy", split: str = "test") -> float:
        """Return the last value of one aggregate."""
        series = self.series(metric, split)
        if not series:
            raise KeyError(f"no {split}/{metric} was recorded; recorded: {sorted({(s, m) for _, s, _, m, _ in self.rows})}")
        return series[-1][1]


def run(
    grid: Grid,
    strategy: FlowerStrategy,
    model: nn.Module | ArrayRecord,
    rounds: int,
    *,
    seed: int = 0,
    evaluate: Evaluate | None = None,
    evaluate_every: int = 1,
    callbacks: Sequence[Callback] = (),
    timeout: float | None = None,
    train_config: Mapping[str, Any] | None = None,
    evaluate_config: Mapping[str, Any] | None = None,
    checkpoints: Checkpoints | None = None,
) -> Result:
    """Run ``rounds`` rounds of federated learning.

    The strategy may be ours or any of Flower's. Around one that is not ours the global random generators are seeded for
    (seed, round) and restored afterwards, so it samples the same clients in every equal run.

    Args:
        grid: where the clients are.
        strategy: chooses clients and aggregates.
        model: the initial model.
        rounds: how many rounds.
        seed: the run's seed.
        evaluate: maps a global model to its metrics on the server's test set; by default that of the Grid's own clients.
        evaluate_every: measure every so many rounds, and always the initial model and that of round ``rounds``.
        callbacks: told of every finished round, in this order; any of them may end the run, or break it off to go on later.
        timeout: seconds to wait for replies; only a Grid that waits uses it.
        train_config: what clients are sent beside the model, as in Flower's ``start()``; for clients that look for it.
        evaluate_config: the same for evaluation.
        checkpoints: where the run is saved, and where it goes on from if there is something; the result is the same to the
            bit. Grid, strategy and callbacks must be made as they were the first time.

    Raises:
        ClientError: a client failed, and its Grid does not drop failures.
        ConfigError: strategy and clients are halves of different methods, or an attack forges what clients do not send.
        FedaggError: the strategy failed; the message names round and stage.
    """
    ensure_identity()
    *around, innermost = layers(grid)
    for adversary in (layer for layer in around if isinstance(layer, Adversary)):
        check_attack(strategy, adversary.attack)
    clients = getattr(innermost, "clients", None)
    if isinstance(clients, Clients):
        check_halves(strategy, clients.local)
        model = clients.local.trains(model, clients.seed) if isinstance(model, nn.Module) else model
        if isinstance(strategy, Strategy):
            clients.report(clients.reports | strategy.required & REPORTS)
    if rounds < 1:
        raise FedaggError(f"a run needs rounds >= 1; got {rounds}")
    if isinstance(model, nn.Module):
        layout = Layout.of_model(model)
        model = layout.record(layout.gather(model))
    loop = _Loop(
        known(grid),
        strategy,
        rounds,
        seed,
        evaluate or _default_evaluation(grid),
        evaluate_every,
        callbacks,
        timeout,
        dict(train_config or {}),
        dict(evaluate_config or {}),
        checkpoints,
    )
    if type(strategy).start is not FlowerStrategy.start:
        return loop.through_start(model)
    return loop.rounds(model)


@dataclass
class _Loop:
    grid: SimulationGrid
    strategy: FlowerStrategy
    last: int
    seed: int
    evaluate: Evaluate | None
    evaluate_every: int
    callbacks: Sequence[Callback]
    timeout: float | None
    train_config: dict[str, Any]
    evaluate_config: dict[str, Any]
    checkpoints: Checkpoints | None
    rows: list[Row] = field(default_factory=list)

    def rounds(self, arrays: ArrayRecord) -> Result:
        """Drive the strategy's four methods."""
        done = self._resumed(arrays)
        stop = done is None and self._finish(done := Round(0, arrays))
        assert done is not None
        while not stop and not self._paused() and done.round < self.last:
            done = Round(done.round + 1, done.arrays)
            self.grid.begin_round(done.round)
            self._train(done)
            self._evaluate_on_clients(done)
            stop = self._finish(done)
            if not stop:  # else, killed now, it would go on past its end
                self._save(done)
        return Result(self._measured(done.arrays), self.rows, done.round, stopped_early=done.round < self.last)

    def _measured(self, arrays: ArrayRecord) -> ArrayRecord:
        """Return the model that is measured where this is the current one."""
        return self.strategy.evaluated_arrays(arrays) if isinstance(self.strategy, Strategy) else arrays

    def _paused(self) -> bool:
        return any(callback.paused for callback in self.callbacks)

    def _with_state(self) -> list[Any]:
        return [callback for callback in self.callbacks if hasattr(callback, "state_dict")]

    def _about(self) -> str:
        return f"{type(self.strategy).__name__}, seed {self.seed}"

    def _save(self, done: Round) -> None:
        if self.checkpoints is None or not (self.checkpoints.due(done.round) or self._paused()):
            return
        try:
            callbacks = [callback.state_dict() for callback in self._with_state()]
            strategy, grid = state_of(self.strategy, type(self.strategy).__name__), self.grid.state_dict()
            self.checkpoints.write(Checkpoint(self._about(), done.round, done.arrays, self.rows, strategy, grid, callbacks))
        except Unsavable as error:
            self.checkpoints.refuse(str(error))
            self.checkpoints = None

    def _resumed(self, arrays: ArrayRecord) -> Round | None:
        """Return the round to go on after, with everything as it was then; None at the start of a run."""
        saved = self.checkpoints.latest() if self.checkpoints else None
        if saved is None:
            return None
        if saved.about != self._about():
            raise FedaggError(f"the checkpoints are of another run: {saved.about} there, {self._about()} here")
        restore(self.strategy, saved.strategy)
        self.grid.load_state_dict(saved.grid)
        had, have = len(saved.callbacks), len(self._with_state())
        if had != have:
            raise FedaggError(f"{had} callbacks had state when the run was saved, and {have} have now; make them as they were")
        for callback, state in zip(self._with_state(), saved.callbacks, strict=True):
            callback.load_state_dict(state)
        self.rows += saved.rows
        if isinstance(self.strategy, Strategy) and isinstance(arrays, ModelRecord) and arrays.state is not None:
            device = arrays.state.params.device  # as our strategies return it; others return plain arrays
            return Round(saved.round, arrays.layout.record(arrays.layout.read(saved.arrays, device)))
        return Round(saved.round, saved.arrays)

    def through_start(self, arrays: ArrayRecord) -> Result:
        """Run a strategy that owns its loop through it. The models it has evaluated become the rows, all else is its own."""
        if self.checkpoints is not None:
            self.checkpoints.latest()  # refuses to start over what an earlier process began
            self.checkpoints.refuse(f"{type(self.strategy).__name__} owns its loop")

        def evaluate(number: int, current: ArrayRecord) -> MetricRecord | None:
            done = Round(number, current)
            self._finish(done)
            if self._paused():
                raise KeyboardInterrupt(f"{type(self.strategy).__name__} owns its loop, which was broken off")
            return metric_record({name: value for _, _, _, name, value in done.rows})

        with rng.seeded_globals(self.seed, "strategy", 0):
            result: FlowerResult = self.strategy.start(
                self.grid,
                arrays,
                num_rounds=self.last,
                timeout=self.timeout or 3600,
                train_config=ConfigRecord(self.train_config),
                evaluate_config=ConfigRecord(self.evaluate_config),
                evaluate_fn=evaluate,
            )
        done = max([*result.train_metrics_clientapp, *result.evaluate_metrics_serverapp], default=self.last)
        return Result(result.arrays or arrays, self.rows, done, stopped_early=done < self.last)

    def _train(self, done: Round) -> None:
        number, arrays = done.round, done.arrays
        started = time.perf_counter()
        with self._foreign(number, "configure"):
            messages = self._step("configure_train", number, arrays, ConfigRecord(self.train_config), self.grid)
        replies = list(self.grid.send_and_receive(messages, timeout=self.timeout))
        done.seconds["train"] = time.perf_counter() - started
        traffic = {"bytes_down": float(bytes_of_arrays(messages)), "bytes_up": float(bytes_of_arrays(replies))}
        replies.sort(key=_sender)
        asked, answered = len(messages), sum(reply.has_content() for reply in replies)
        started = time.perf_counter()
        with self._foreign(number, "aggregate"):
            new, metrics = self._step("aggregate_train", number, replies)
        done.seconds["aggregate"] = time.perf_counter() - started
        done.arrays = arrays if new is None else new
        server = {"asked": float(asked), "answered": float(answered), **traffic, **self.grid.round_info()}
        if isinstance(self.strategy, Strategy):
            server |= self.strategy.round_metrics
        for name, value in (metrics or {}).items():
            if isinstance(value, int | float):
                split = "server" if name in REPORTED_BY_SERVER and isinstance(self.strategy, Strategy) else "train"
                done.rows.append((number, split, None, name, float(value)))
        if "byzantine" in server:
            weights: dict[int, float] = getattr(self.strategy, "last_info", {}).get("client_weights", {})
            server |= trust(weights, self.grid.byzantine)
        done.rows += [(number, "server", None, name, value) for name, value in server.items()]
        for name, values in self.strategy.client_metrics.items() if isinstance(self.strategy, Strategy) else ():
            done.rows += [(number, "server", client, name, value) for client, value in values.items()]

    def _evaluate_on_clients(self, done: Round) -> None:
        """Ask clients to evaluate, if the strategy wants it. The spread is over honest clients: liars say anything."""
        started = time.perf_counter()
        with self._foreign(done.round, "configure evaluation"):
            config = ConfigRecord(self.evaluate_config)
            messages = self._step("configure_evaluate", done.round, done.arrays, config, self.grid)
        if not messages:
            return
        replies = sorted(self.grid.send_and_receive(messages, timeout=self.timeout), key=_sender)
        honest: dict[str, list[float]] = {}
        for reply in replies:
            client = reply.metadata.src_node_id
            for record in records_of(reply, MetricRecord) if reply.has_content() else ():
                for name, value in record.items():
                    if name != "num-examples" and isinstance(value, int | float):
                        done.rows.append((done.round, "client", client, name, float(value)))
                        if client not in self.grid.byzantine:
                            honest.setdefault(name, []).append(float(value))
        for name, values in honest.items():
            done.rows.append((done.round, "clients", None, f"{name}_mean", float(np.mean(values))))
            if name == "accuracy":
                done.rows.append((done.round, "clients", None, "accuracy_worst_decile", worst_decile(values)))
        with self._foreign(done.round, "aggregate evaluation"):
            self._step("aggregate_evaluate", done.round, replies)
        done.seconds["evaluate_clients"] = time.perf_counter() - started

    def _finish(self, done: Round) -> bool:
        due = done.round in (0, self.last) or done.round % self.evaluate_every == 0
        if self.evaluate is not None and due:
            started = time.perf_counter()
            metrics = self.evaluate(self._measured(done.arrays))
            splits = {"objective": "train"}  # measured by the server as well, but on other examples
            measured = [(done.round, splits.get(name, "test"), None, name, value) for name, value in metrics.items()]
            done.rows = [*measured, *done.rows]
            done.seconds["evaluate"] = time.perf_counter() - started
        self.rows += done.rows
        return any([callback.round_finished(done) for callback in self.callbacks])

    def _step(self, method: str, number: int, *args: Any) -> Any:
        try:
            made = getattr(self.strategy, method)(number, *args)
            return list(made) if method.startswith("configure") else made  # a generator fails when it is read
        except FedaggError:
            raise
        except Exception as error:
            name = type(self.strategy).__name__
            raise FedaggError(f"{name}.{method} failed in round {number}: {type(error).__name__}: {error}") from error

    def _foreign(self, number: int, purpose: str) -> AbstractContextManager[None]:
        if isinstance(self.strategy, Strategy):
            return nullcontext()
        return rng.seeded_globals(self.seed, f"strategy {purpose}", number)


def worst_decile(values: Iterable[float]) -> float:
    """Return the mean of the lowest tenth of the values (at least one of them)."""
    ordered = np.sort(np.asarray(list(values), dtype=np.float64))
    return float(ordered[: max(1, len(ordered) // 10)].mean())


def _sender(reply: Message) -> int:
    return int(reply.metadata.src_node_id)


def _default_evaluation(grid: Grid) -> Evaluate | None:
    """Find the test set of the clients at the bottom of the Grids, where they are ours, and a backdoor on the way there."""
    backdoor: Any = None
    while isinstance(grid, WorldGrid):
        if isinstance(grid, Adversary) and getattr(grid.attack, "trigger", None) is not None:
            backdoor = grid.attack
        grid = grid.grid
    clients = getattr(grid, "clients", None)
    if not isinstance(clients, Clients) or not clients.local.server_model:
        return None

    def evaluate(arrays: ArrayRecord) -> dict[str, float]:
        state = clients.layout.read(arrays)
        metrics = clients.test(state)
        if backdoor is not None:
            metrics["attack_success_rate"] = clients.attack_success(state, backdoor.trigger, backdoor.target)
        return metrics

    return evaluate
