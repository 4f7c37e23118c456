"""Clients on Ray against the same clients in this process: the same bits, whatever the number of workers."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedagg import Adversary, Availability, ClientError, Clients, ConfigError, LocalGrid, LocalSGD, Population, Strategy, run
from fedagg.attacks import ALIE, LabelFlip
from fedagg.data import Dataset, Dirichlet
from fedagg.grid import Bernoulli, SimulationGrid
from fedagg.grid.ray import RayGrid, place, ray
from fedagg.loop import Result
from strategies import Krum, TrimmedMean

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def net(dataset: Dataset) -> nn.Module:
    """Dropout draws from the seed tree, batch norm has buffers of both kinds."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 10))


@pytest.fixture(scope="module")
def uneven(dataset: Dataset) -> Population:
    return Population.split(dataset, Dirichlet(alpha=0.3), num_clients=9, seed=0, holdout=0.2)


@pytest.fixture
def clients(uneven: Population, net: nn.Module) -> Clients:
    return Clients(uneven, net, LocalSGD(lr=0.1, momentum=0.9, batch_size=1000), seed=3)


def world(grid: SimulationGrid, attack: object, net: nn.Module) -> Result:
    around = Availability(grid, Bernoulli(0.8, seed=3, num_clients=9))
    hostile = Adversary(around, attack, 0.2, seed=3)  # type: ignore[arg-type]
    strategy = Strategy(TrimmedMean(f=1) if isinstance(attack, ALIE) else Krum(f=1), evaluate_every=2, cohort=7, seed=3)
    return run(hostile, strategy, net, rounds=4, seed=3)


def bytes_of(result: Result) -> dict[str, bytes]:
    return {name: array.data for name, array in result.arrays.items()}


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("attack", [ALIE(z=1.0), LabelFlip(num_classes=10)], ids=str)
def test_the_same_bits_as_in_one_process(workers: int, attack: object, clients: Clients, net: nn.Module) -> None:
    expected = world(LocalGrid(clients), attack, net)
    with RayGrid(clients, workers=workers) as grid:
        result = world(grid, attack, net)
    assert result.rows == expected.rows
    assert bytes_of(result) == bytes_of(expected)


@pytest.mark.parametrize(
    ("costs", "workers", "shares"),
    [
        ({1: 5, 2: 4, 3: 3, 4: 3, 5: 3}, 2, [[1, 4], [2, 3, 5]]),  # 5 | 4, then 3 to the 4, 3 to the 5, 3 to the 7
        ({7: 1, 3: 1, 5: 1}, 2, [[3, 7], [5]]),  # equal costs go by id
        ({1: 10, 2: 1, 3: 1, 4: 1}, 2, [[1], [2, 3, 4]]),
        ({4: 2}, 3, [[4], [], []]),
        ({}, 2, [[], []]),
    ],
)
def test_the_most_expensive_clients_are_placed_first(costs: dict[int, float], workers: int, shares: list[list[int]]) -> None:
    assert place(costs, workers) == shares


def test_a_killed_worker_changes_nothing(clients: Clients, net: nn.Module) -> None:
    """Its process gets SIGKILL while clients train; another one takes its place."""
    expected = world(LocalGrid(clients), ALIE(z=1.0), net)
    with RayGrid(clients, workers=2) as grid:
        kill_next(grid)
        result = world(grid, ALIE(z=1.0), net)
        assert len(grid._hire()) == 2
    assert result.rows == expected.rows
    assert bytes_of(result) == bytes_of(expected)


def kill_next(grid: RayGrid) -> None:
    """Kill one worker just after the second share of work has gone out."""
    asked, fit = iter(range(100)), grid.fit

    def sabotaged(*args: object) -> object:
        if next(asked) == 1:
            victim = grid._staff[0]
            os.kill(ray.get(victim.pid.remote()), signal.SIGKILL)
        return fit(*args)  # type: ignore[arg-type]

    grid.fit = sabotaged  # type: ignore[method-assign, assignment]


def app(bad: int | None = None) -> ClientApp:
    made = ClientApp()

    @made.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        if client == bad:
            raise ValueError(f"disk of {client} is full")
        seen = context.state.metric_records.get("seen", MetricRecord({"n": 0}))
        context.state["seen"] = MetricRecord({"n": int(seen["n"]) + 1})
        numbers = {"num-examples": 1, "calls": context.state["seen"]["n"], "drawn": float(np.random.rand())}
        arrays = message.content["arrays"]
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(numbers)}), reply_to=message)

    return made


def test_a_foreign_app_remembers_its_clients(net: nn.Module) -> None:
    expected = run(LocalGrid(app(), 5, seed=2), Strategy(), net, rounds=3, seed=2, evaluate=lambda arrays: {})
    with RayGrid(app(), 5, workers=2, seed=2) as grid:
        result = run(grid, Strategy(), net, rounds=3, seed=2, evaluate=lambda arrays: {})
        kept = grid.state_dict()["contexts"]
    assert result.rows == expected.rows
    assert [value for number, _, _, name, value in result.rows if name == "calls"] == [1, 2, 3]
    assert [kept[client]["seen"]["n"] for client in range(5)] == [3] * 5


def test_a_failing_client_is_named_as_in_one_process(net: nn.Module) -> None:
    with RayGrid(app(bad=3), 5, workers=2) as grid, pytest.raises(ClientError, match="disk of 3 is full") as caught:
        run(grid, Strategy(), net, rounds=1, evaluate=lambda arrays: {})
    assert (caught.value.client_id, caught.value.round, caught.value.stage) == (3, 1, "train")
    assert "Traceback" in caught.value.detail


class Broken(Population):
    def train(self, client_id: int) -> tuple[torch.Tensor, torch.Tensor]:
        if client_id == 4:
            raise OSError("no such file")
        return super().train(client_id)


def test_a_failing_client_of_ours_is_dropped_if_asked(uneven: Population, net: nn.Module) -> None:
    broken = Clients(Broken(uneven.dataset, uneven.indices), net)
    expected = run(LocalGrid(broken, on_client_error="drop"), Strategy(), net, rounds=1)
    with RayGrid(broken, workers=2, on_client_error="drop") as grid:
        result = run(grid, Strategy(), net, rounds=1)
    assert result.rows == expected.rows
    assert (1, "server", None, "client_errors", 1.0) in result.rows


def test_memory_stays_where_it_is(clients: Clients, net: nn.Module) -> None:
    """40 rounds move about 60 kB a round each way; what is used at the end is what was used after ten."""
    with RayGrid(clients, workers=2) as grid:
        run(grid, Strategy(), net, rounds=10, evaluate_every=100)
        before = grid.memory()
        run(grid, Strategy(), net, rounds=40, evaluate_every=100)
        after = grid.memory()
    for place_, used in after.items():
        assert used - before[place_] < 8e6, place_


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, r"engine\.workers must be an integer >= 1; got 0"),
        ({"threads": 1.5}, r"engine\.threads must be an integer >= 1; got 1\.5"),
        ({"cpus_per_worker": -1}, r"engine\.cpus_per_worker must be a number >= 0; got -1"),
        ({"workers": 4}, r"4 workers need 4 CPUs; Ray has 3 CPUs\. Lower engine\.workers"),
        ({"gpus_per_worker": 1}, r"2 workers need 2 GPUs; Ray has 0 GPUs"),
    ],
)
def test_impossible_settings(clients: Clients, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RayGrid(clients, **{"workers": 2, **settings})  # type: ignore[arg-type]
    assert ray.is_initialized()  # it was not ours to stop
