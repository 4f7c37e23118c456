"""Ditto: a model of one's own beside the shared one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedagg import Clients, ConfigError, LocalGrid, LocalSGD, Population, Strategy, run
from fedagg.checkpoint import Checkpoints
from fedagg.clients import Ditto, FedProx, client_app
from fedagg.data import IID, Dataset
from fedagg.models import build
from tests.clients.local.slow import LR, SEED, Slow, close, close_each, every_executor, go, mean, smooth
from tests.oracle import EXECUTORS, local, trajectory

LAM = 0.5


@pytest.mark.parametrize(("executor", "allowed"), EXECUTORS.items())
def test_the_oracle(executor: str, allowed: float) -> None:
    found = trajectory(Strategy(), local(Ditto, lam=LAM), rounds=1, executor=executor)
    assert found.w == pytest.approx([-0.085], abs=allowed)
    own = found.grid.state_dict()["memory"]["personal"]["rows"]
    assert [float(row) for row in own] == pytest.approx([0.185, -0.35], abs=allowed)


def reference(slow: Slow, cohorts: list[list[int]]) -> tuple[Tensor, dict[int, Tensor]]:
    w, own = slow.start, dict[int, Tensor]()
    for round, cohort in enumerate(cohorts, start=1):
        ends = []
        for client in cohort:
            y, v = w, own.get(client, w)
            for rows in slow.batches(client, round):
                y = y - LR * slow.gradient(client, y, rows)
            for rows in slow.batches(client, round, "personal batches"):
                v = v - LR * (slow.gradient(client, v, rows) + LAM * (v - w))
            own[client] = v
            ends.append(y)
        w = mean(ends)
    return w, own


@every_executor
def test_against_a_loop(population: Population, executor: str) -> None:
    model = smooth()
    found = go(population, model, Ditto(lam=LAM), executor=executor)
    w, own = reference(Slow(population, model), found.cohorts)
    close(found.params, w)
    close_each(found.remembered("personal"), own)


@every_executor
@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_the_shared_model_is_that_of_plain_training_to_the_bit(population: Population, executor: str, mu: float) -> None:
    runs = [go(population, smooth(), local, executor=executor) for local in (FedProx(mu=mu), Ditto(mu=mu))]
    assert torch.equal(runs[0].params, runs[1].params)
    assert runs[0].result.rows == runs[1].result.rows


def normed() -> nn.Module:
    return build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)), seed=1)


@pytest.fixture(scope="module")
def held(dataset: Dataset) -> Population:
    return Population.split(dataset, IID(), num_clients=4, seed=1, holdout=0.25)


@pytest.mark.parametrize("make", [smooth, normed])
def test_clients_evaluate_their_own(held: Population, make: object) -> None:
    """With its own running statistics, where a model has some. A client that has not taken part evaluates what it receives."""
    model = make()  # type: ignore[operator]
    found = go(held, model, Ditto(lam=LAM), Strategy(cohort=2, seed=SEED, evaluate_every=2), rounds=2)
    own, buffers = found.remembered("personal"), found.remembered("personal_buffers")
    received = found.layout.read(found.result.arrays)
    assert 1 < len(own) < 4
    wanted = {}
    for client in range(4):
        state = found.layout.empty()
        state.params, state.float_buffers, state.int_buffers = received.params, received.float_buffers, received.int_buffers
        if client in own:
            state.params, state.float_buffers = own[client], buffers[client]
        net, (x, y) = make().eval(), held.validation(client)  # type: ignore[operator]
        found.layout.scatter(state, net)
        wanted[client] = cross_entropy(net(x), y).item()
    reported = {
        client: value for _, split, client, metric, value in found.result.rows if (split, metric) == ("client", "loss")
    }
    assert reported == pytest.approx(wanted, rel=1e-5)
    assert found.result.last("loss") > 0  # the shared model is measured as well


def test_personal_statistics_come_from_personal_training(held: Population) -> None:
    """After a first round: those of a network that torch trains alike, whose start is where v is drawn to."""
    found = go(held, normed(), Ditto(lam=LAM), rounds=1)
    for client, row in found.remembered("personal_buffers").items():
        net, slow = normed().double().train(), Slow(held, normed())
        w = [parameter.detach().clone() for parameter in net.parameters()]
        x, y = held.train(client)
        for rows in slow.batches(client, 1, "personal batches"):
            grads = torch.autograd.grad(cross_entropy(net(x[rows].double()), y[rows]), list(net.parameters()))
            for value, start, grad in zip(net.parameters(), w, grads, strict=True):
                value.data -= LR * (grad + LAM * (value.data - start))
        close(row, torch.cat([net[2].running_mean, net[2].running_var]))  # type: ignore[arg-type,list-item]
    state = found.layout.read(found.result.arrays)
    assert state.int_buffers.tolist() == [9]  # 269 examples a client, and personal steps are not counted


def test_without_the_term_each_trains_alone(population: Population) -> None:
    """It starts from the first model that it receives, and then sees no other."""
    model = smooth()
    found = go(population, model, Ditto(lam=0.0), rounds=3)
    slow, own = Slow(population, model), dict[int, Tensor]()
    shared = [slow.start, *(go(population, model, LocalSGD(), rounds=k).params.double() for k in (1, 2))]
    for round, cohort in enumerate(found.cohorts, start=1):
        for client in cohort:
            v = own.get(client, shared[round - 1])
            for rows in slow.batches(client, round, "personal batches"):
                v = v - LR * slow.gradient(client, v, rows)
            own[client] = v
    close_each(found.remembered("personal"), own)


def test_flower_clients_do_the_same(held: Population) -> None:
    def losses(grid: LocalGrid) -> dict[int, float]:
        return dict(run(grid, Strategy(cohort=3, seed=1, evaluate_every=1), normed(), 3).series("loss_mean", "clients"))

    clients = Clients(held, normed(), Ditto(lam=LAM), seed=SEED)
    assert losses(LocalGrid(client_app(clients), num_clients=4)) == pytest.approx(losses(LocalGrid(clients)), rel=1e-4)


def test_going_on_from_a_checkpoint(held: Population, tmp_path: Path) -> None:
    def go_on(folder: Path | None, rounds: int) -> list[tuple[int, str, int | None, str, float]]:
        checkpoints = Checkpoints(folder, every=1) if folder else None
        clients = Clients(held, normed(), Ditto(lam=LAM), seed=SEED)
        strategy = Strategy(cohort=2, seed=1, evaluate_every=1)
        return run(LocalGrid(clients), strategy, normed(), rounds, checkpoints=checkpoints).rows

    go_on(tmp_path, 2)
    assert go_on(tmp_path, 4) == go_on(None, 4)


def test_who_fails_in_either_training_fails_once(population: Population) -> None:
    calls = []

    def fails_at_first(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(len(y))
        return (x, y + 100) if len(calls) == 1 else (x, y)

    clients = Clients(population, smooth(), Ditto(), seed=SEED)
    done = clients.fit(clients.layout.gather(smooth()), [0, 1], 1, {1: fails_at_first})
    assert list(done.errors) == [1]
    assert done.client_ids == [0]
    assert len(done.kept["personal"]) == 1


def test_a_personal_model_that_diverges_is_not_remembered(population: Population) -> None:
    clients = Clients(population, smooth(), Ditto(lam=1e30), seed=SEED)
    state = clients.layout.gather(smooth())
    done = clients.fit(state, [0, 1], 1)
    assert done.finite == [True, True]  # the shared ones
    assert torch.equal(done.kept["personal"], state.params.expand(2, -1))


@pytest.mark.parametrize("settings", [{"lam": -0.1}, {"lam": "strong"}, {"mu": -1}])
def test_impossible_settings(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"must be a number >= 0; got"):
        Ditto(**settings)
