"""Strategies and clients that somebody else wrote, resumed: their state is found without their help, or its lack is told."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Result as FlowerResult
from flwr.serverapp.strategy import Strategy as FlowerStrategy
from torch import nn

from fedagg import Adversary, Checkpoints, Clients, FedaggError, LocalGrid, Strategy
from fedagg.attacks import ALIE
from fedagg.grid import Sanitize
from strategies import Median
from tests.resume.parts import EnoughSeen, Grudge, Killed, Momentum, World, exact, remembering

SOME: dict[str, Any] = {"fraction_train": 1e-9, "min_train_nodes": 4, "min_available_nodes": 4, "fraction_evaluate": 0.0}


class Wrapping(flower.FedAvg):
    """A strategy around a strategy, with an aggregation function, as people write them."""

    def __init__(self, inner: FlowerStrategy, **settings: Any) -> None:
        super().__init__(train_metrics_aggr_fn=lambda contents, key: contents[0]["metrics"], **settings)
        self.inner, self.history = inner, []

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        self.history.append((server_round, len(list(replies))))
        arrays, metrics = self.inner.aggregate_train(server_round, replies)
        if arrays is not None:
            scale = 1 - 0.01 * len(self.history)
            arrays = ArrayRecord({name: Array(array.numpy() * scale) for name, array in arrays.items()})
        return arrays, metrics

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        return self.inner.configure_train(server_round, arrays, config, grid)


STRATEGIES: dict[str, Callable[[], FlowerStrategy]] = {
    "FedAvg": lambda: flower.FedAvg(**SOME),
    "FedAvgM": lambda: flower.FedAvgM(**SOME, server_momentum=0.9),
    "FedAdam": lambda: flower.FedAdam(**SOME, eta=0.02),
    "FedYogi": lambda: flower.FedYogi(**SOME, eta=0.02),
    "FedAdagrad": lambda: flower.FedAdagrad(**SOME, eta=0.02),
    "FedMedian": lambda: flower.FedMedian(**SOME),
    "MultiKrum": lambda: flower.MultiKrum(**SOME, num_malicious_nodes=1, num_nodes_to_select=2),
    "FedAvgM, made private": lambda: flower.DifferentialPrivacyServerSideAdaptiveClipping(
        flower.FedAvgM(**SOME, server_momentum=0.9), noise_multiplier=0.2, num_sampled_clients=4, initial_clipping_norm=0.5
    ),
    "FedAdam, wrapped": lambda: Wrapping(flower.FedAdam(**SOME, eta=0.02), **SOME),
    "ours, wrapped": lambda: Wrapping(Strategy(Momentum(), cohort=4), **SOME),
}


@pytest.fixture(name="world")
def _world(clients: Clients, model: nn.Module) -> World:
    return World(lambda: LocalGrid(clients), lambda: flower.FedAvg(**SOME), model, rounds=5)


@pytest.mark.filterwarnings("ignore:.*noise.*:UserWarning")
@pytest.mark.parametrize("name", STRATEGIES)
def test_flower_strategies_go_on_where_they_were(world: World, tmp_path: Path, name: str) -> None:
    world.strategy = STRATEGIES[name]
    assert exact(world.killed_and_resumed(tmp_path, kill_after=(3,))) == exact(world.run())


def test_under_attack(world: World, tmp_path: Path) -> None:
    inner = world.grid
    world.grid = lambda: Sanitize(Adversary(Adversary(inner(), Grudge(), 0.2), ALIE(), 0.34, seed=1))
    world.strategy = STRATEGIES["FedAdam"]
    assert exact(world.killed_and_resumed(tmp_path, kill_after=(3,))) == exact(world.run())


@pytest.mark.parametrize("make", [lambda: Strategy(Median(), cohort=4), STRATEGIES["FedAvgM"]], ids=["ours", "Flower's"])
def test_a_client_app_keeps_what_it_remembers(tmp_path: Path, make: Callable[[], FlowerStrategy]) -> None:
    start = ArrayRecord({"a": _array([1.0, 2.0]), "b": _array([[0.5]])})
    world = World(lambda: LocalGrid(remembering, num_clients=6), make, start, settings={"evaluate": lambda arrays: {}})
    assert exact(world.killed_and_resumed(tmp_path)) == exact(world.run())


def _array(values: Any) -> Any:
    return Array(np.array(values, np.float32))


class Holding(flower.FedAvg):
    """Holds something in an attribute, as many a strategy does."""

    def __init__(self, thing: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.thing = thing


class Function:
    """A function with a memory."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


@pytest.mark.parametrize(
    ("thing", "found"),
    [
        (nn.Linear(1, 1), r"Holding\.thing is a torch\.nn\.modules\.linear\.Linear"),
        ({"a": [np.random.default_rng(0)]}, r"Holding\.thing\['a'\]\[0\] is a numpy\.random\._generator\.Generator"),
        (np.array([object()]), r"Holding\.thing is a numpy\.ndarray"),
        (torch.Generator(), r"Holding\.thing is a torch\._C\.Generator"),
        (Function(), r"Holding\.thing is a tests\.resume\.test_foreign\.Function"),
    ],
    ids=["module", "generator in containers", "array of objects", "torch generator", "function with a memory"],
)
def test_an_attribute_that_cannot_be_saved_is_named(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture, thing: Any, found: str
) -> None:
    """The run itself is none the worse; going on with it is refused with the same reason, however it ended."""
    world.strategy = lambda: Holding(thing, **SOME)
    with caplog.at_level(logging.WARNING, logger="fedagg"), pytest.raises(Killed):
        world.run(Checkpoints(tmp_path, every=1), kill_after=4)
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("fedagg")]
    assert warning.startswith("no checkpoints, so this run cannot be resumed: Holding.thing")
    with pytest.raises(FedaggError, match=found):
        world.run(Checkpoints(tmp_path, every=1))
    assert exact(world.run()) == exact(World(world.grid, lambda: flower.FedAvg(**SOME), world.model, rounds=5).run())


@pytest.mark.parametrize("thing", [len, print, nn.Linear, np, lambda: 1, [1.5, None, ("a", b"c")], np.float64(2)])
def test_what_the_config_makes_again_is_no_obstacle(world: World, tmp_path: Path, thing: Any) -> None:
    world.strategy = lambda: Holding(thing, **SOME)
    assert exact(world.killed_and_resumed(tmp_path, kill_after=(3,))) == exact(world.run())


class OwnLoop(flower.FedAvg):
    """A strategy with a loop of its own, which tells of two models."""

    def start(self, grid: Any, initial_arrays: Any, *, evaluate_fn: Any = None, **settings: Any) -> FlowerResult:
        for number in range(3):
            evaluate_fn(number, initial_arrays)
        return FlowerResult(arrays=initial_arrays)


def test_a_strategy_that_owns_its_loop_cannot_be_resumed_and_says_so(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world.strategy = lambda: OwnLoop(**SOME)
    with pytest.raises(Killed):
        world.run(Checkpoints(tmp_path, every=1), kill_after=1)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("fedagg")]
    assert messages == ["no checkpoints, so this run cannot be resumed: OwnLoop owns its loop"]
    with pytest.raises(FedaggError, match=r"cannot be resumed: OwnLoop owns its loop\. Start over in a new directory"):
        world.run(Checkpoints(tmp_path, every=1))


def test_a_strategy_that_owns_its_loop_can_be_broken_off(world: World) -> None:
    class Tired(EnoughSeen):
        paused = True

    world.strategy, world.callbacks = (lambda: OwnLoop(**SOME)), lambda: [Tired(9)]
    with pytest.raises(KeyboardInterrupt, match="OwnLoop owns its loop"):
        world.run()
