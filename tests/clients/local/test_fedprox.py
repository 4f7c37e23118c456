"""FedProx: the proximal term, its neutral setting, and what FedNova divides by."""

import math

import pytest
import torch
from torch import Tensor

from fedagg import Clients, ConfigError, LocalSGD, Population, Strategy
from fedagg.clients import FedProx, WorkerMomentum
from tests.clients.local.slow import LR, Slow, close, every_executor, go, mean, smooth
from tests.oracle import EXECUTORS, local, trajectory


@pytest.mark.parametrize(("executor", "allowed"), EXECUTORS.items())
def test_the_oracle(executor: str, allowed: float) -> None:
    """It settles beside the optimum, -1/3, as federated averaging does, and nearer to where it began."""
    found = trajectory(Strategy(), local(FedProx, mu=1.0), rounds=300, executor=executor).w
    assert found[:2] == pytest.approx([-0.08, -0.1392], abs=allowed)
    assert found[-1] == pytest.approx(-4 / 13, abs=2 * allowed)


def reference(slow: Slow, cohorts: list[list[int]], mu: float, momentum: float, decay: float) -> Tensor:
    w = slow.start
    for round, cohort in enumerate(cohorts, start=1):
        ends = []
        for client in cohort:
            y, velocity = w, torch.zeros_like(w)
            for rows in slow.batches(client, round):
                velocity = momentum * velocity + slow.gradient(client, y, rows) + mu * (y - w) + decay * y
                y = y - LR * velocity
            ends.append(y)
        w = mean(ends)
    return w


@every_executor
@pytest.mark.parametrize(("mu", "momentum", "decay"), [(2.0, 0.0, 0.0), (0.7, 0.8, 0.01)])
def test_against_a_loop(population: Population, executor: str, mu: float, momentum: float, decay: float) -> None:
    model = smooth()
    found = go(population, model, FedProx(mu=mu, momentum=momentum, weight_decay=decay), executor=executor)
    close(found.params, reference(Slow(population, model), found.cohorts, mu, momentum, decay))


@every_executor
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_without_the_term_it_is_local_sgd_to_the_bit(population: Population, executor: str, momentum: float) -> None:
    runs = [
        go(population, smooth(), local, executor=executor, rounds=2)
        for local in (LocalSGD(momentum=momentum), FedProx(mu=0.0, momentum=momentum))
    ]
    assert torch.equal(runs[0].params, runs[1].params)
    assert runs[0].result.rows == runs[1].result.rows


def test_a_strong_term_holds_clients_back(population: Population) -> None:
    model = smooth()
    lengths = [
        (go(population, model, FedProx(mu=mu), rounds=1).params - Slow(population, model).start).norm() for mu in (0, 1, 9)
    ]
    assert lengths[0] > lengths[1] > 1.5 * lengths[2]


@pytest.mark.parametrize("mu", [-1, "much", None])
def test_impossible_terms(mu: object) -> None:
    with pytest.raises(ConfigError, match=f"local.mu must be a number >= 0; got {mu}"):
        FedProx(mu=mu)  # type: ignore[arg-type]


# What FedNova divides by


def test_coefficients_of_plain_and_heavy_ball_steps() -> None:
    assert [LocalSGD().a_norm(k) for k in (0, 1, 7)] == [0.0, 1.0, 7.0]
    assert LocalSGD(momentum=0.9).a_norm(5) == pytest.approx(13.1441)
    for m in (0.1, 0.5, 0.99):
        assert LocalSGD(momentum=m).a_norm(1) == 1.0
        assert LocalSGD(momentum=m).a_norm(30) == pytest.approx((30 - m * (1 - m**30) / (1 - m)) / (1 - m))
    assert LocalSGD(weight_decay=0.1).a_norm(7) == 7.0


def test_coefficients_of_proximal_steps() -> None:
    assert FedProx(lr=0.1, mu=0.5).a_norm(4) == pytest.approx((1 - 0.95**4) / 0.05)
    assert FedProx(lr=0.1, mu=0.0, momentum=0.9).a_norm(5) == pytest.approx(13.1441)


@pytest.mark.parametrize("settings", [{"momentum": 0.6}, {"mu": 3.0}, {"mu": 3.0, "momentum": 0.6}, {"mu": 15.0}])
def test_coefficients_are_those_of_the_steps(settings: dict[str, float]) -> None:
    """One gradient of 1, at each of the steps in turn: how far has it moved the parameters in the end?"""
    training, steps, total = FedProx(lr=0.1, **{"mu": 0.0, **settings}), 6, 0.0  # type: ignore[arg-type]
    for struck in range(steps):
        y, memory = torch.zeros(1, dtype=torch.float64), {"received": [torch.zeros(1, dtype=torch.float64)]}
        for step in range(steps):
            training.step([y], [torch.full_like(y, float(step == struck))], memory)
        total += abs(y.item()) / 0.1
    assert training.a_norm(steps) == pytest.approx(total)


def test_clients_report_them_or_are_refused(population: Population) -> None:
    with pytest.raises(ConfigError, match="WorkerMomentum sends gradients of earlier rounds as well"):
        Clients(population, smooth(), WorkerMomentum(), reports=["a_norm"])
    clients = Clients(population, smooth(), FedProx(mu=1.0), reports=["a_norm"])
    state = clients.layout.gather(smooth())
    steps = [math.ceil(len(population.indices[client]) / 32) for client in (0, 3)]
    done = clients.fit(state, [0, 3], 1)
    assert [metrics["a_norm"] for metrics in done.metrics] == pytest.approx([(1 - 0.9**k) / 0.1 for k in steps])
