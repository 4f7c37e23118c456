"""Whole runs with FedLAW, with and without attackers."""

import math
from typing import Any

import torch
from torch import nn

from fedagg import Adversary, Clients, LocalGrid, LocalSGD, Population, run
from fedagg.attacks import SignFlip
from fedagg.data import Dirichlet
from fedagg.grid import Faults
from fedagg.models import build, logistic_regression
from fedagg.testing import check_strategy
from strategies import FedLAW
from tests.protocols.fedlaw_inputs import cohort_of


def test_it_keeps_the_promises_of_strategies() -> None:
    """And so it has no state: a run that goes on from a checkpoint ends with the same bits."""
    draw = torch.Generator().manual_seed(0)
    model = build(logistic_regression, (2,), 3, seed=0)
    strategy = FedLAW(model, (torch.randn(30, 2, generator=draw), torch.arange(30) % 3), epochs=2)
    assert strategy.state_dict() == {}
    check_strategy(strategy)


def test_a_round_without_replies_reports_nothing(grid: LocalGrid, model: nn.Module) -> None:
    x, y = torch.zeros(10, 1, 8, 8), torch.arange(10)
    strategy = FedLAW(model, (x, y), epochs=1)
    strategy.aggregate(cohort_of(model))
    assert strategy.round_metrics()
    result = run(Faults(grid, drop=1.0), strategy, model, rounds=1)
    assert result.series("gamma", "server") == []


def run_on_digits(dataset: Any, attack: Any = None, **settings: Any) -> tuple[Any, FedLAW]:
    population = Population.split(dataset, Dirichlet(0.3), num_clients=8, seed=0, trusted=100)
    model = build(lambda: logistic_regression(dataset.input_shape, dataset.num_classes), seed=0)
    own = dataset.features(dataset.x_train[population.trusted]), torch.tensor(dataset.y_train[population.trusted])
    grid: Any = LocalGrid(Clients(population, model, LocalSGD(lr=0.1), seed=0))
    strategy = FedLAW(model, own, **settings)
    return run(grid if attack is None else Adversary(grid, attack, fraction=0.25), strategy, model, rounds=5), strategy


def test_a_run_on_digits(dataset: Any) -> None:
    """Five rounds are few for this model: growing it (gamma > 1) and weighing its clients is worth a round or two."""
    learned, _ = run_on_digits(dataset)
    plain, _ = run_on_digits(dataset, epochs=0)
    assert plain.last() > 0.55
    assert learned.last() > plain.last() + 0.03
    series = {name: dict(learned.series(name, "server")) for name in METRICS}
    assert all(list(values) == [1, 2, 3, 4, 5] for values in series.values())
    assert all(series["proxy_loss_after"][r] < series["proxy_loss_before"][r] for r in series["gamma"])
    assert all(0 < series["lambda_min"][r] < series["lambda_max"][r] < 1 for r in series["gamma"])
    assert all(series["lambda_entropy"][r] < math.log(8) for r in series["gamma"])
    assert all(series["learning_steps"][r] == 20 for r in series["gamma"])
    assert set(dict(plain.series("gamma", "server")).values()) == {1.0}


METRICS = (
    "gamma",
    "lambda_min",
    "lambda_max",
    "lambda_entropy",
    "proxy_loss_before",
    "proxy_loss_after",
    "learning_steps",
    "coherence",
)


def test_it_cannot_switch_off_an_attacker(dataset: Any) -> None:
    """Two of eight clients send five times the opposite: in 40 steps of 0.01 they keep more than e^-0.8 of their odds."""
    result, strategy = run_on_digits(dataset, SignFlip(scale=5.0), weighting=None, batch_size=50)
    kept = dict(result.series("byzantine_weight", "server"))
    odds = 2 / 6
    floor = odds * math.exp(-0.8) / (1 + odds * math.exp(-0.8))
    assert len(kept) == 5
    assert all(floor < share < 0.25 for share in kept.values())  # less than a mean would give, and never nothing
    assert strategy.round_metrics()["lambda_min"] > 0.04
