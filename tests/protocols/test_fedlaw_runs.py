"""Whole runs with FedLAW, with and without attackers."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedagg import Adversary, Clients, LocalGrid, LocalSGD, Population, run
from fedagg.attacks import SignFlip
from fedagg.data import Dirichlet
from fedagg.grid import Faults
from fedagg.models import build, logistic_regression
from fedagg.testing import check_strategy
from strategies import FedLAW, StaticClip
from tests.protocols.fedlaw_inputs import cohort_of
from tests.resume.parts import KillAfter, Killed
from tests.running import run_into


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
    assert strategy.round_metrics
    result = run(Faults(grid, drop=1.0), strategy, model, rounds=1)
    assert result.series("gamma", "server") == []
    assert "lambda" not in {row[3] for row in result.rows}


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


def test_every_share_is_on_the_record_and_readers_of_aggregates_do_not_see_it(tmp_path: Path) -> None:
    settings = ["strategy=fedlaw", "strategy.epochs=1", "trusted=50", "cohort=4", "checkpoint.every=1"]
    result, whole = run_into(tmp_path / "whole", *settings)
    for number in (1, 2, 3):
        shares = [row[4] for row in result.rows if (row[0], row[1], row[3]) == (number, "server", "lambda")]
        lowest, highest = (dict(result.series(f"lambda_{end}", "server"))[number] for end in ("min", "max"))
        assert (len(shares), min(shares), max(shares)) == (4, lowest, highest)
        assert sum(shares) == pytest.approx(1)
    clients = sorted({row[2] for row in result.rows if row[3] == "lambda"})
    assert len(clients) > 4
    assert sum(len(whole.series("lambda", "server", client)[0]) for client in clients) == 12
    assert len(whole.series("lambda", "server")[0]) == 0
    assert "server/lambda" not in whole.names
    with pytest.raises(Killed):
        run_into(tmp_path / "killed", *settings, watch=lambda _: [KillAfter(2)])
    _, resumed = run_into(tmp_path / "killed", *settings, resume=True)
    assert (resumed.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()


def test_mixtures_of_clients_have_no_share_on_the_record(model: nn.Module) -> None:
    strategy = FedLAW(model, (torch.zeros(10, 1, 8, 8), torch.arange(10)), epochs=1)
    strategy.aggregate(cohort_of(model))
    assert strategy.client_metrics == {"lambda": strategy.last_info["lam"]}
    mixed = FedLAW(model, (torch.zeros(10, 1, 8, 8), torch.arange(10)), epochs=1, pre_aggregators=[StaticClip(c=1.0)])
    mixed.aggregate(cohort_of(model))
    assert mixed.client_metrics == {}


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
    assert strategy.round_metrics["lambda_min"] > 0.04
