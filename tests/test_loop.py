"""The loop: what callbacks, rows and results promise, whose strategy it may drive, and what it says when one fails."""

import math
import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy import Strategy as FlowerStrategy
from torch import nn

from fedagg import (
    Adversary,
    Availability,
    Callback,
    ClientError,
    Clients,
    FedaggError,
    LocalGrid,
    LocalSGD,
    Population,
    Strategy,
    run,
)
from fedagg.attacks import SignFlip
from fedagg.data import Dataset
from fedagg.grid import Bernoulli
from fedagg.loop import Round, worst_decile
from fedagg.models import build
from fedagg.params import Layout


class Watch(Callback):
    """Notes what it is told, and stops the run after one round."""

    def __init__(self, log: list[tuple[str, int]], name: str = "", stop_after: int | None = None) -> None:
        self.log, self.name, self.stop_after = log, name, stop_after
        self.rounds: list[Round] = []

    def round_finished(self, done: Round) -> bool | None:
        self.log.append((self.name, done.round))
        self.rounds.append(done)
        return None if self.stop_after is None else done.round == self.stop_after


def values_of(arrays: ArrayRecord) -> dict[str, list[float]]:
    return {name: array.numpy().ravel().tolist() for name, array in arrays.items()}


def test_callbacks_are_told_of_every_round_in_their_order(grid: LocalGrid, model: nn.Module) -> None:
    log: list[tuple[str, int]] = []
    result = run(grid, Strategy(), model, rounds=2, callbacks=[Watch(log, "first"), Watch(log, "second")])
    assert log == [("first", 0), ("second", 0), ("first", 1), ("second", 1), ("first", 2), ("second", 2)]
    assert (result.rounds, result.stopped_early) == (2, False)


@pytest.mark.parametrize("place", [0, 1])
def test_any_callback_may_stop_the_run_and_all_are_told_of_the_last_round(
    grid: LocalGrid, model: nn.Module, place: int
) -> None:
    log: list[tuple[str, int]] = []
    callbacks = [Watch(log, "a", stop_after=2 if place == 0 else None), Watch(log, "b", stop_after=2 if place == 1 else None)]
    result = run(grid, Strategy(), model, rounds=5, callbacks=callbacks)
    assert log[-2:] == [("a", 2), ("b", 2)]
    assert (result.rounds, result.stopped_early) == (2, True)
    assert [number for number, _ in result.series()] == [0, 1, 2]
    assert values_of(result.arrays) == values_of(callbacks[0].rounds[2].arrays) != values_of(callbacks[0].rounds[1].arrays)


def test_stopping_at_the_ends(grid: LocalGrid, model: nn.Module) -> None:
    at_once = run(grid, Strategy(), model, rounds=2, callbacks=[Watch([], stop_after=0)])
    assert (at_once.rounds, at_once.stopped_early) == (0, True)
    assert values_of(at_once.arrays) == values_of(Layout.of_model(model).record(Layout.of_model(model).gather(model)))
    at_last = run(grid, Strategy(), model, rounds=2, callbacks=[Watch([], stop_after=2)])
    assert (at_last.rounds, at_last.stopped_early) == (2, False)


def test_rows_are_tidy_and_the_clock_is_not_among_them(grid: LocalGrid, model: nn.Module) -> None:
    watch = Watch([])
    result = run(grid, Strategy(), model, rounds=2, callbacks=[watch])
    assert result.rows == [row for done in watch.rounds for row in done.rows]
    kinds = [(int, str, type(None), str, float)] * len(result.rows)
    assert [tuple(type(entry) for entry in row) for row in result.rows] == kinds
    names = {number: {(split, metric) for r, split, _, metric, _ in result.rows if r == number} for number in (0, 1, 2)}
    assert names[0] == {("test", "loss"), ("test", "accuracy")}
    counts = "asked", "answered", "clients", "rejected", "not_finite", "client_errors", "bytes_down", "bytes_up"
    server = {("server", name) for name in counts}
    assert names[1] == names[2] == names[0] | server | {("train", "loss"), ("train", "local_steps")}
    assert len({row[:4] for row in result.rows}) == len(result.rows)
    assert watch.rounds[0].seconds.keys() == {"evaluate"}
    assert watch.rounds[1].seconds.keys() == {"train", "aggregate", "evaluate"}
    assert all(seconds > 0 for done in watch.rounds for seconds in done.seconds.values())


def test_series_last_and_value_pick_one_aggregate(grid: LocalGrid, model: nn.Module) -> None:
    watch = Watch([])
    result = run(grid, Strategy(), model, rounds=2, callbacks=[watch])
    accuracy = [value for _, split, _, metric, value in result.rows if (split, metric) == ("test", "accuracy")]
    assert result.series() == list(enumerate(accuracy))
    assert result.last() == accuracy[2]
    assert result.last("loss", "train") == result.series("loss", "train")[-1][1] != result.last("loss")
    assert watch.rounds[1].value("test", "accuracy") == accuracy[1]
    assert watch.rounds[0].value("server", "asked") is None
    with pytest.raises(KeyError, match=r"no test/f1 was recorded; recorded: .*\('test', 'accuracy'\)"):
        result.last("f1")


@pytest.mark.parametrize(
    ("rounds", "every", "measured"),
    [(4, 1, [0, 1, 2, 3, 4]), (7, 3, [0, 3, 6, 7]), (6, 3, [0, 3, 6]), (2, 100, [0, 2]), (1, 1, [0, 1])],
)
def test_the_initial_and_the_last_model_are_always_measured(
    grid: LocalGrid, model: nn.Module, rounds: int, every: int, measured: list[int]
) -> None:
    result = run(grid, Strategy(cohort=1), model, rounds=rounds, evaluate_every=every)
    assert [number for number, _ in result.series()] == measured
    assert [number for number, _ in result.series("asked", "server")] == list(range(1, rounds + 1))


def test_round_0_is_the_initial_model(clients: Clients, model: nn.Module) -> None:
    watch = Watch([])
    result = run(LocalGrid(clients), Strategy(), model, rounds=1, callbacks=[watch])
    initial = clients.test(clients.layout.gather(model))
    assert {metric: value for r, _, _, metric, value in result.rows if r == 0} == initial
    assert values_of(watch.rounds[0].arrays) == {name: tensor.ravel().tolist() for name, tensor in model.state_dict().items()}


def test_a_model_may_be_a_module_or_anybodys_arrays(grid: LocalGrid, model: nn.Module) -> None:
    module = run(grid, Strategy(), model, rounds=2)
    plain = run(grid, Strategy(), ArrayRecord(model.state_dict()), rounds=2)
    assert module.rows == plain.rows
    assert values_of(module.arrays) == values_of(plain.arrays)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert values_of(module.arrays) != {name: tensor.ravel().tolist() for name, tensor in before.items()}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_an_evaluation_of_ones_own(clients: Clients, grid: LocalGrid, model: nn.Module) -> None:
    seen: list[ArrayRecord] = []

    def evaluate(arrays: ArrayRecord) -> dict[str, float]:
        seen.append(arrays)
        return {"f1": float(len(seen)), "norm": float(clients.layout.read(arrays).params.norm())}

    watch = Watch([])
    result = run(grid, Strategy(), model, rounds=3, evaluate=evaluate, evaluate_every=2, callbacks=[watch])
    assert result.series("f1") == [(0, 1.0), (2, 2.0), (3, 3.0)]
    assert [values_of(arrays) for arrays in seen] == [values_of(watch.rounds[number].arrays) for number in (0, 2, 3)]
    assert result.series("accuracy") == []
    assert result.last("norm") == pytest.approx(float(clients.layout.read(result.arrays).params.norm()))


def test_the_clients_test_set_is_found_below_other_grids(grid: LocalGrid, model: nn.Module) -> None:
    plain = run(grid, Strategy(), model, rounds=1)
    world = Adversary(Availability(grid, Bernoulli(1.0, num_clients=6)), SignFlip(), 0.0)
    assert run(world, Strategy(), model, rounds=1).series() == plain.series()


@pytest.mark.parametrize("rounds", [0, -1])
def test_a_run_needs_a_round(grid: LocalGrid, model: nn.Module, rounds: int) -> None:
    with pytest.raises(FedaggError, match=f"a run needs rounds >= 1; got {rounds}"):
        run(grid, Strategy(), model, rounds=rounds)


# Clients evaluate


@pytest.fixture(name="holding")
def _holding(population: Population, model: nn.Module) -> LocalGrid:
    """Six clients that hold a fifth of their data out."""
    return LocalGrid(Clients(Population(population.dataset, population.indices, holdout=0.2), model, LocalSGD()))


@pytest.mark.parametrize(
    "around",
    [
        lambda grid: Adversary(grid, SignFlip(scale=20), 1 / 3, seed=0),
        lambda grid: Adversary(grid, SignFlip(scale=20), 1 / 3, seed=0, sampling="cohort"),
        lambda grid: Availability(Adversary(grid, SignFlip(scale=20), 1 / 3, seed=0), Bernoulli(1.0, num_clients=6)),
    ],
    ids=["population", "cohort", "below another grid"],
)
def test_liars_do_not_speak_for_the_clients(
    holding: LocalGrid, model: nn.Module, around: Callable[[LocalGrid], Adversary | Availability]
) -> None:
    """Every client has its row; the aggregates are of the honest ones."""
    world = around(holding)
    result = run(world, Strategy(evaluate_every=1), model, rounds=1)
    adversary = world if isinstance(world, Adversary) else world.grid
    assert isinstance(adversary, Adversary)
    assert len(adversary.byzantine) == 2
    clients = holding.clients
    assert isinstance(clients, Clients)
    truth = clients.evaluate(clients.layout.read(result.arrays), clients.ids, 1).metrics
    rows = {(client, metric): value for _, split, client, metric, value in result.rows if split == "client"}
    assert rows == {(client, name): value for client, own in enumerate(truth) for name, value in own.items()}
    honest = [client for client in range(6) if client not in adversary.byzantine]
    for metric in ("loss", "accuracy"):
        assert result.last(f"{metric}_mean", "clients") == pytest.approx(
            math.fsum(truth[client][metric] for client in honest) / 4
        )
        assert result.last(f"{metric}_mean", "clients") != pytest.approx(math.fsum(own[metric] for own in truth) / 6)
    assert result.last("accuracy_worst_decile", "clients") == min(truth[client]["accuracy"] for client in honest)
    assert {metric for _, split, _, metric, _ in result.rows if split == "clients"} == {
        "loss_mean",
        "accuracy_mean",
        "accuracy_worst_decile",
    }


def test_clients_evaluate_when_the_strategy_asks(holding: LocalGrid, model: nn.Module) -> None:
    result = run(holding, Strategy(evaluate_every=2), model, rounds=5)
    assert [number for number, _ in result.series("accuracy_mean", "clients")] == [2, 4]
    assert not [row for row in run(holding, Strategy(), model, rounds=2).rows if row[1].startswith("client")]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5], 0.5),
        ([0.9, 0.4, 0.8, 0.7, 0.6, 0.5, 0.45, 0.55, 0.65], 0.4),
        ([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 0.1),
        ([i / 100 for i in range(19)], 0.0),  # 19: still the lowest alone
        ([i / 100 for i in range(24, -1, -1)], 0.005),  # 25: the two lowest, 0.00 and 0.01
        ([i / 100 for i in range(30)], 0.01),  # 30: 0.00, 0.01 and 0.02
    ],
    ids=["1", "9", "10", "19", "25", "30"],
)
def test_worst_decile_by_hand(values: list[float], expected: float) -> None:
    assert worst_decile(iter(values)) == pytest.approx(expected, rel=1e-12)


# Strategies of others


class Broken(FlowerStrategy):
    """Averages, and fails in one method of round 2."""

    def __init__(self, method: str, error: Exception, lazily: bool = False) -> None:
        self.method, self.error, self.lazily = method, error, lazily

    def _maybe(self, method: str, number: int) -> None:
        if (method, number) == (self.method, 2):
            raise self.error

    def _ask(self, method: str, kind: str, number: int, arrays: ArrayRecord, grid: Grid) -> Iterable[Message]:
        def messages() -> Iterable[Message]:
            self._maybe(method, number)
            content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": number})})
            yield from (Message(content, dst_node_id=node, message_type=kind) for node in grid.get_node_ids())

        return messages() if self.lazily else list(messages())

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        return self._ask("configure_train", "train", server_round, arrays, grid)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self._ask("configure_evaluate", "evaluate", server_round, arrays, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        self._maybe("aggregate_train", server_round)
        all_arrays = [reply.content["arrays"] for reply in replies]
        means = {name: np.mean([arrays[name].numpy() for arrays in all_arrays], axis=0) for name in all_arrays[0]}
        return ArrayRecord({name: Array(mean) for name, mean in means.items()}), None

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        self._maybe("aggregate_evaluate", server_round)
        return None

    def summary(self) -> None: ...


@pytest.mark.parametrize("lazily", [False, True], ids=["list", "generator"])
@pytest.mark.parametrize("method", ["configure_train", "aggregate_train", "configure_evaluate", "aggregate_evaluate"])
def test_a_failing_strategy_is_named_with_its_method_and_round(
    holding: LocalGrid, model: nn.Module, method: str, lazily: bool
) -> None:
    log: list[tuple[str, int]] = []
    cause = ZeroDivisionError("no weight")
    with pytest.raises(FedaggError, match=f"Broken.{method} failed in round 2: ZeroDivisionError: no weight") as caught:
        run(holding, Broken(method, cause, lazily), model, rounds=3, callbacks=[Watch(log)])
    assert caught.value.__cause__ is cause
    assert log == [("", 0), ("", 1)]


def test_errors_that_already_explain_themselves_are_not_wrapped(holding: LocalGrid, model: nn.Module) -> None:
    cause = ClientError(3, 2, "train", "out of memory")
    with pytest.raises(ClientError) as caught:
        run(holding, Broken("aggregate_train", cause), model, rounds=3)
    assert caught.value is cause


def test_a_strategy_that_is_only_four_methods_is_enough(holding: LocalGrid, model: nn.Module) -> None:
    ours = run(holding, Strategy(evaluate_every=1), model, rounds=2)
    theirs = run(holding, Broken("", ValueError()), model, rounds=2)
    assert [number for number, _ in theirs.series("accuracy_mean", "clients")] == [1, 2]
    for name, value in values_of(ours.arrays).items():
        np.testing.assert_allclose(values_of(theirs.arrays)[name], value, rtol=1e-4, atol=1e-6)


def test_a_strategy_that_owns_its_loop_is_run_through_it(grid: LocalGrid, model: nn.Module) -> None:
    calls = []

    class Own(FedAvg):
        def start(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(kwargs["num_rounds"])
            return super().start(*args, **kwargs)

    settings: dict[str, Any] = {"min_train_nodes": 6, "min_available_nodes": 6, "fraction_evaluate": 0.0}
    watch = Watch([])
    result = run(grid, Own(**settings), model, rounds=3, evaluate_every=2, callbacks=[watch])
    assert calls == [3]
    assert [done.round for done in watch.rounds] == [0, 1, 2, 3]
    assert [number for number, _ in result.series()] == [0, 2, 3]
    stepwise = run(grid, FedAvg(**settings), model, rounds=3, evaluate_every=2)
    assert result.series() == stepwise.series()  # all six clients, so nothing is drawn


def test_no_test_set_without_clients_of_ours(model: nn.Module) -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = message.content["arrays"]
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    result = run(LocalGrid(app, num_clients=2), Strategy(), model, rounds=1)
    assert {split for _, split, *_ in result.rows} == {"server"}


# Random numbers


def global_state() -> tuple[Any, ...]:
    numpy = np.random.get_state()
    return random.getstate(), numpy[1].tolist(), numpy[2:], torch.get_rng_state().tolist()  # type: ignore[union-attr]


def scramble(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class Draws(FedAvg):
    """Flower's FedAvg, which samples with ``random``, made to draw from the other two generators as well."""

    def __init__(self) -> None:
        super().__init__(fraction_train=1e-9, min_train_nodes=3, min_available_nodes=6, fraction_evaluate=1.0)
        self.drawn: list[float] = []

    def aggregate_train(self, *args: Any) -> Any:
        self.drawn += [float(np.random.rand()), float(torch.rand(()))]
        return super().aggregate_train(*args)


@pytest.fixture(name="with_dropout")
def _with_dropout(population: Population, dataset: Dataset) -> tuple[LocalGrid, nn.Module]:
    """Training that draws from torch's global generator."""
    model = build(lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, dataset.num_classes)), seed=0)
    holding = Population(population.dataset, population.indices, holdout=0.2)
    return LocalGrid(Clients(holding, model, LocalSGD(), seed=0)), model


@pytest.mark.parametrize("make", [lambda: Strategy(cohort=3, evaluate_every=1), Draws], ids=["ours", "foreign"])
def test_a_run_neither_reads_nor_moves_the_global_generators(
    with_dropout: tuple[LocalGrid, nn.Module], make: Callable[[], FlowerStrategy]
) -> None:
    grid, model = with_dropout
    outcomes = []
    for seed in (1, 2):
        scramble(seed)
        before, strategy = global_state(), make()
        result = run(Adversary(grid, SignFlip(), 1 / 3), strategy, model, rounds=3, seed=5)
        assert global_state() == before
        outcomes.append((result.rows, values_of(result.arrays), getattr(strategy, "drawn", None)))
    assert outcomes[0] == outcomes[1]
    if isinstance(strategy, Draws):
        assert len(set(strategy.drawn)) == 6  # three rounds, two generators: a round does not repeat another
        other = make()
        run(Adversary(grid, SignFlip(), 1 / 3), other, model, rounds=3, seed=6)
        assert not set(other.drawn) & set(strategy.drawn)  # type: ignore[attr-defined]


def test_a_failing_foreign_strategy_leaves_the_global_generators_alone(holding: LocalGrid, model: nn.Module) -> None:
    scramble(3)
    before = global_state()
    with pytest.raises(FedaggError):
        run(holding, Broken("aggregate_train", ValueError("no")), model, rounds=3)
    assert global_state() == before
