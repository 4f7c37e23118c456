"""Clients on Ray against the same clients in this process: the same bits, whatever the number of workers."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedagg import (
    Adversary,
    Availability,
    ClientError,
    Clients,
    ConfigError,
    FedaggError,
    LocalGrid,
    LocalSGD,
    Population,
    Strategy,
    run,
)
from fedagg.attacks import ALIE, LabelFlip
from fedagg.clients import Ditto, FedBN, Moon, Scaffold, WorkerMomentum, client_app
from fedagg.data import Dataset, Dirichlet
from fedagg.grid import Bernoulli, SimulationGrid
from fedagg.grid.ray import RayGrid, ray
from fedagg.grid.workers import groups, place, room
from fedagg.loop import Result
from fedagg.models import build, mlp
from strategies import SCAFFOLD, Krum, TrimmedMean

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
def test_the_same_bits_as_in_one_process(workers: int, clients: Clients, net: nn.Module) -> None:
    with RayGrid(clients, workers=workers) as grid:
        for attack in (ALIE(z=1.0), LabelFlip(num_classes=10)):
            result, expected = world(grid, attack, net), world(LocalGrid(clients), attack, net)
            assert result.rows == expected.rows
            assert bytes_of(result) == bytes_of(expected)


def test_what_clients_remember_follows_them(uneven: Population, net: nn.Module) -> None:
    clients = Clients(uneven, net, WorkerMomentum(batch_size=1000), seed=3)
    with RayGrid(clients, workers=2) as grid:
        result, expected = (
            run(world, Strategy(cohort=4, seed=3), net, rounds=4, seed=3) for world in (grid, LocalGrid(clients))
        )
    assert bytes_of(result) == bytes_of(expected)


def test_control_variates_and_models_of_ones_own_travel(uneven: Population, net: nn.Module) -> None:
    """Vectors beside the model, both ways, and what a client evaluates; one client fails in every round."""
    for local, strategy in ((Scaffold(), SCAFFOLD), (Ditto(), Strategy), (Moon(), Strategy), (FedBN(), Strategy)):
        clients = Clients(uneven, net, local, seed=3)
        with RayGrid(clients, workers=2, on_client_error="drop") as grid:
            result, expected = (
                run(world, strategy(cohort=5, seed=3, evaluate_every=1), net, rounds=3, seed=3)
                for world in (grid, LocalGrid(clients, on_client_error="drop"))
            )
            memory = grid.state_dict()["memory"]
        assert result.rows == expected.rows
        assert bytes_of(result) == bytes_of(expected)
        assert all(len(saved["clients"]) > 5 for saved in memory.values())


def test_clients_that_are_batched_stay_together(uneven: Population, caplog: pytest.LogCaptureFixture) -> None:
    """Matrix products of another size add up in another order, so who shares a batch must not depend on workers."""
    model = build(mlp, (1, 8, 8), 10, hidden=(32,), seed=0)
    clients = Clients(uneven, model, LocalSGD(lr=0.1), executor="batched", batch=4)
    expected = run(LocalGrid(clients), Strategy(), model, rounds=3)
    with RayGrid(clients, workers=2) as grid:
        assert grid.engine is not None
        assert (grid.engine.name, grid.engine.batch) == ("batched", 4)
        kill_next(grid)
        result = run(grid, Strategy(), model, rounds=3)
    assert "a Ray worker was lost" in caplog.text
    assert result.rows == expected.rows
    assert bytes_of(result) == bytes_of(expected)


def test_groups_survive_being_shared_out() -> None:
    assert groups([2, 3, 5, 8, 9], 2) == {2: [2, 3], 5: [5, 8], 9: [9]}
    assert groups([2, 3, 9], 2) == {2: [2, 3], 9: [9]}  # the first and the last group, sorted and divided again
    assert groups([], 2) == {}


@pytest.mark.parametrize(
    ("nodes", "needs", "expected"),
    [
        ([{"CPU": 4.0}], {"CPU": 1.0, "GPU": 0.0}, 4),
        ([{"CPU": 3.0}, {"CPU": 3.0}], {"CPU": 2.0, "GPU": 0.0}, 2),  # what is left over on two nodes is no worker
        ([{"CPU": 1.0}], {"CPU": 0.1, "GPU": 0.0}, 10),
        ([{"CPU": 16.0, "GPU": 2.0}], {"CPU": 1.0, "GPU": 0.6}, 2),  # each on a GPU of its own
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 64.0}], {"CPU": 1.0, "GPU": 0.5}, 4),
        ([{"CPU": 16.0, "GPU": 3.0}], {"CPU": 1.0, "GPU": 2.0}, 1),
        ([{"CPU": 1.0}], {"CPU": 0.0, "GPU": 0.0}, float("inf")),
        ([], {"CPU": 1.0, "GPU": 0.0}, 0),
    ],
)
def test_how_many_workers_fit(nodes: list[dict[str, float]], needs: dict[str, float], expected: float) -> None:
    assert room(nodes, needs) == expected


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


def test_a_worker_killed_between_two_rounds_changes_nothing(
    clients: Clients, net: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    expected = world(LocalGrid(clients), ALIE(z=1.0), net)
    with RayGrid(clients, workers=2) as grid:
        kill_next(grid)
        result = world(grid, ALIE(z=1.0), net)
    assert result.rows == expected.rows
    assert bytes_of(result) == bytes_of(expected)
    assert "a Ray worker was lost" in caplog.text


class KillsItsWorker(Population):
    """Client 4's first training ends the process it runs in."""

    marker: Path
    times = 1

    def train(self, client_id: int) -> tuple[torch.Tensor, torch.Tensor]:
        if client_id == 4 and len(list(self.marker.iterdir())) < self.times:
            (self.marker / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train(client_id)


def test_a_worker_killed_while_it_trains_changes_nothing(
    uneven: Population, net: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = LocalSGD(batch_size=1000)
    expected = run(LocalGrid(Clients(uneven, net, whole, seed=3)), Strategy(), net, rounds=2)
    deadly = KillsItsWorker(uneven.dataset, uneven.indices, uneven.holdout, uneven.seed)
    deadly.marker = tmp_path
    with RayGrid(Clients(deadly, net, whole, seed=3), workers=2) as grid:
        result = run(grid, Strategy(), net, rounds=2)
    assert result.rows == expected.rows
    assert bytes_of(result) == bytes_of(expected)
    assert len(list(tmp_path.iterdir())) == 1
    assert caplog.text.count("a Ray worker was lost") == 1


def test_a_client_that_always_kills_its_worker_ends_the_run(
    uneven: Population, net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedagg.grid.ray.LOSSES", 2)
    deadly = KillsItsWorker(uneven.dataset, uneven.indices)
    deadly.marker, deadly.times = tmp_path, 100
    clients = Clients(deadly, net, LocalSGD(batch_size=1000))
    with RayGrid(clients, workers=2) as grid, pytest.raises(FedaggError, match="2 times in a row a Ray worker"):
        run(grid, Strategy(), net, rounds=1)


def kill_next(grid: RayGrid) -> None:
    """Kill one worker just before the second share of work goes out."""
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


def test_clients_of_ours_as_an_app_are_the_same_on_ray(uneven: Population, net: nn.Module) -> None:
    """The app holds its clients, which are pickled with it."""
    made = client_app(Clients(uneven, net, LocalSGD(batch_size=1000)))
    expected = run(LocalGrid(made, 9), Strategy(), net, rounds=2, evaluate=lambda arrays: {})
    with RayGrid(made, 9, workers=1) as grid:
        result = run(grid, Strategy(), net, rounds=2, evaluate=lambda arrays: {})
    assert result.rows == expected.rows
    assert bytes_of(result) == bytes_of(expected)


def test_an_app_that_cannot_be_sent_is_refused() -> None:
    made, lock = app(), threading.Lock()

    @made.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        with lock:
            return message

    with pytest.raises(ConfigError, match="Ray cannot send these clients to its workers"):
        RayGrid(made, 2, workers=1).open()


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
    broken = Clients(Broken(uneven.dataset, uneven.indices), net, LocalSGD(batch_size=1000))
    expected = run(LocalGrid(broken, on_client_error="drop"), Strategy(), net, rounds=1)
    with RayGrid(broken, workers=2, on_client_error="drop") as grid:
        result = run(grid, Strategy(), net, rounds=1)
    assert result.rows == expected.rows
    assert (1, "server", None, "client_errors", 1.0) in result.rows


def test_memory_stays_where_it_is(uneven: Population) -> None:
    """Every round moves 2 MB of rows: thirty of them, kept anywhere, would be seven times the tolerance."""
    wide = build(mlp, (1, 8, 8), 10, seed=0)
    with RayGrid(Clients(uneven, wide), workers=2) as grid:
        run(grid, Strategy(), wide, rounds=10, evaluate_every=100)
        before = grid.memory()
        run(grid, Strategy(), wide, rounds=30, evaluate_every=100)
        after = grid.memory()
    for where, used in after.items():
        assert used - before[where] < 9e6, where


def test_a_cluster_that_others_occupy(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    with RayGrid(clients, workers=1, cpus_per_worker=3):
        monkeypatch.setattr("fedagg.grid.ray.PATIENCE", 1.0)
        with pytest.raises(
            FedaggError, match=r"none came in 1 s: each needs 1 CPU and 0 GPUs, and 0 CPUs and 0 GPUs are free"
        ):
            RayGrid(clients, workers=2).open()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, r"engine\.workers must be an integer >= 1; got 0"),
        ({"threads": 1.5}, r"engine\.threads must be an integer >= 1; got 1\.5"),
        ({"cpus_per_worker": -1}, r"engine\.cpus_per_worker must be a number >= 0; got -1"),
        (
            {"workers": 4},
            r"engine\.workers=4, each with 1 CPU and 0 GPUs: Ray has room for 3, on 1 node with 3 CPUs and 0 GPUs",
        ),
        ({"gpus_per_worker": 1}, r"engine\.workers=2, each with 1 CPU and 1 GPU: Ray has room for 0"),
    ],
)
def test_impossible_settings(clients: Clients, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message), RayGrid(clients, **{"workers": 2, **settings}):  # type: ignore[arg-type]
        pass
    assert ray.is_initialized()  # it was not ours to stop
