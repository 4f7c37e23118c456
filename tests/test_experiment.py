"""From a config to an experiment: what it implies, what is built, what is refused; and a plug-in of one's own."""

import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import fedagg
from fedagg import Adversary, Availability, Callback, ConfigError, Strategy
from fedagg.data import Dataset
from fedagg.experiment import build
from fedagg.hydra_app import compose
from fedagg.loop import Round
from fedagg.models import build as build_model
from fedagg.results import read_run
from fedagg.settings import implied_f
from strategies import ByExamples, FedDisco, FedNova
from tests.running import SMALL, run_into


def steps(*overrides: str, directory: Path) -> list[torch.Tensor]:
    """The parameters after every round, as one vector each."""
    seen: list[torch.Tensor] = []

    class Keep(Callback):
        def round_finished(self, done: Round) -> None:
            seen.append(torch.cat([torch.from_numpy(array.numpy()).ravel() for array in done.arrays.values()]))

    run_into(directory, *overrides, watch=lambda _: [Keep()])
    return seen


# What the server believes


@pytest.mark.parametrize(
    ("overrides", "f"),
    [
        ("attack=none attack.fraction=0.5", 0),
        ("attack=alie attack.fraction=0.2 population=20", 4),
        ("attack=alie attack.fraction=0.25 population=6", 2),  # 1.5
        ("attack=alie attack.fraction=0.2 population=20 cohort=6", 2),  # 1.2, of the cohort
        ("attack=alie attack.fraction=0.1 population=30", 3),
        ("attack=alie attack.fraction=0.07 population=100", 7),  # 7.000000000000001
        ("attack=alie attack.fraction=0.29 population=100", 29),  # 28.999999999999996
        ("attack=alie attack.fraction=0 population=20", 0),
        ("attack=alie attack.fraction=1 population=20", 20),
        ("attack=alie attack.fraction=0.2 population=20 f=1", 1),
        ("attack=alie attack.fraction=0.2 population=20 f=0", 0),
        ("attack=none population=20 f=3", 3),
    ],
)
def test_f_is_what_the_attack_implies_unless_it_is_given(overrides: str, f: int) -> None:
    experiment = build(compose([*SMALL, *overrides.split()]))
    assert experiment.f == experiment.cfg.f == f


def test_implied_f_is_never_off_by_a_rounding_error() -> None:
    for percent in range(101):
        for cohort in range(1, 31):
            cfg = OmegaConf.create({"attack": {"method": {}, "fraction": percent / 100}, "cohort": cohort})
            assert implied_f(cfg) == math.ceil(Fraction(percent, 100) * cohort), (percent, cohort)


def test_f_reaches_the_rule() -> None:
    experiment = build(compose([*SMALL, "population=10", "strategy=krum", "attack=alie", "attack.fraction=0.21"]))
    assert isinstance(experiment.strategy, Strategy)
    assert experiment.strategy.rule.f == 3  # type: ignore[attr-defined]


# What the config asks for is what is built


def test_clients_evaluate_on_what_they_hold_out(tmp_path: Path) -> None:
    _, run = run_into(
        tmp_path / "run",
        "evaluation.clients=true",
        "evaluation.every=2",
        "rounds=4",
        "attack=sign_flip",
        "attack.fraction=0.34",
    )
    rows = run.metrics
    of_clients = rows.split == "client"
    assert sorted(set(rows.client[of_clients].tolist())) == list(range(6))
    assert sorted(set(rows.round[of_clients].tolist())) == [2, 4]
    accuracy = [run.series("accuracy", "client", client)[1][-1] for client in range(6)]
    honest = [value for client, value in enumerate(accuracy) if client not in run.info["byzantine"]]
    assert len(honest) == 4
    assert run.series("accuracy_mean", "clients")[1][-1] == pytest.approx(sum(honest) / 4)
    assert run.series("accuracy_worst_decile", "clients")[1][-1] == min(honest)


@pytest.mark.parametrize(("overrides", "share"), [([], 0.2), (["evaluation.holdout=0.5"], 0.5)])
def test_clients_hold_data_out_only_if_they_evaluate(overrides: list[str], share: float) -> None:
    silent = build(compose([*SMALL, *overrides])).clients.population
    assert silent.num_examples.tolist() == silent.sizes.tolist()
    asked = build(compose([*SMALL, "evaluation.clients=true", *overrides])).clients.population
    assert asked.sizes.tolist() == silent.sizes.tolist()
    assert asked.num_examples.tolist() == [int(size - math.floor(share * size + 0.5)) for size in asked.sizes.tolist()]


def test_flower_strategies_evaluate_on_clients_when_they_are_told_to(tmp_path: Path) -> None:
    overrides = ["strategy=flwr_fedavg", "evaluation.clients=true", "strategy.fraction_evaluate=1.0"]
    _, run = run_into(tmp_path / "run", *overrides)
    assert run.series("accuracy_mean", "clients")[0].tolist() == [1, 2, 3]
    with pytest.raises(ConfigError, match=r"evaluation\.clients=true, but .*FedAvg asks no client; .*fraction_evaluate=1"):
        build(compose([*SMALL, *overrides[:2]]))


def test_participation_decides_who_is_asked(tmp_path: Path) -> None:
    overrides = ["participation=bernoulli", "participation.probabilities=[1,1,1e-9,1e-9,1,1e-9]"]
    _, run = run_into(tmp_path / "ours", *overrides)
    for name in ("reachable", "asked", "answered"):
        assert run.series(name, "server")[1].tolist() == [3, 3, 3]
    _, few = run_into(tmp_path / "few", *overrides, "cohort=2")
    assert few.series("reachable", "server")[1].tolist() == [3, 3, 3]
    assert few.series("asked", "server")[1].tolist() == [2, 2, 2]
    _, flower = run_into(tmp_path / "flower", *overrides, "strategy=flwr_fedavg")  # it asks without knowing who is there
    assert flower.series("asked", "server")[1].tolist() == [6, 6, 6]
    assert flower.series("answered", "server")[1].tolist() == [3, 3, 3]


def test_clients_that_cannot_be_reached_are_measured_all_the_same(tmp_path: Path) -> None:
    overrides = ["participation=bernoulli", "participation.probabilities=[1,1,1e-9,1e-9,1,1e-9]", "evaluation.clients=true"]
    result, run = run_into(tmp_path, *overrides)
    assert run.series("answered", "server")[1].tolist() == [3, 3, 3]
    measured = {(r, client) for r, split, client, name, _ in result.rows if (split, name) == ("client", "accuracy")}
    assert measured == {(r, client) for r in (1, 2, 3) for client in range(6)}


def test_participation_takes_population_and_seed_from_the_config() -> None:
    grids = [build(compose([*SMALL, "participation=bernoulli", f"seed={seed}"])).grid for seed in (0, 1)]
    assert all(isinstance(grid, Availability) for grid in grids)
    reached = [[grid.participation.available(number).tolist() for number in range(1, 9)] for grid in grids]  # type: ignore[attr-defined]
    assert {len(mask) for masks in reached for mask in masks} == {6}
    assert reached[0] != reached[1]


def test_adam_on_the_server_takes_its_first_step_by_hand(tmp_path: Path) -> None:
    """Adam's first step is lr * g / (|g| + 1e-8), so lr wherever the aggregate is clearly not 0."""
    plain = steps("rounds=1", directory=tmp_path / "plain")
    adam = steps("rounds=1", "server_optimizer=adam", "server_optimizer.make.lr=0.002", directory=tmp_path / "adam")
    delta, moved = plain[1] - plain[0], adam[1] - adam[0]
    assert torch.equal(plain[0], adam[0])
    clear = delta.abs() > 1e-5
    assert clear.sum() > 300
    torch.testing.assert_close(moved[clear], 0.002 * delta[clear].sign(), rtol=2e-3, atol=1e-6)


def test_momentum_on_the_server_by_hand(tmp_path: Path) -> None:
    """With momentum m the second step is delta_2 + m delta_1; without it the models are those of the plain step."""
    plain = steps(directory=tmp_path / "plain")
    still = steps("server_optimizer=fedavgm", "server_optimizer.beta=0", directory=tmp_path / "still")
    for a, b in zip(plain, still, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    moving = steps("server_optimizer=fedavgm", "server_optimizer.beta=0.5", directory=tmp_path / "moving")
    torch.testing.assert_close(moving[1], plain[1], rtol=1e-5, atol=1e-6)  # the same model, so the same clients' answer
    torch.testing.assert_close(moving[2] - moving[1], plain[2] - plain[1] + 0.5 * (plain[1] - plain[0]), rtol=1e-3, atol=1e-5)


def test_half_a_server_step_is_half_of_it(tmp_path: Path) -> None:
    plain = steps("rounds=1", directory=tmp_path / "plain")
    half = steps("rounds=1", "server_optimizer.lr=0.5", directory=tmp_path / "half")
    torch.testing.assert_close(half[1] - half[0], (plain[1] - plain[0]) / 2, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("data", "classes"), [("breast_cancer", 2), ("digits", 10)])
def test_label_flip_knows_the_classes_of_the_data(data: str, classes: int) -> None:
    experiment = build(compose([*SMALL, f"data={data}", "attack=label_flip"]))
    assert isinstance(experiment.grid, Adversary)
    assert experiment.grid.attack.num_classes == classes  # type: ignore[attr-defined]
    labels = torch.arange(classes)
    assert experiment.grid.attack.poison(torch.zeros(classes, 1), labels)[1].tolist() == labels.flip(0).tolist()  # type: ignore[attr-defined]


def test_the_model_starts_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    a = build(compose([*SMALL, "seed=3"])).model
    torch.manual_seed(2)
    b, c = build(compose([*SMALL, "seed=3", "partition=shards"])).model, build(compose([*SMALL, "seed=4"])).model
    linear = build_model(lambda: nn.Linear(64, 10), seed=3)
    assert torch.equal(a[1].weight, b[1].weight)  # type: ignore[index]
    assert torch.equal(a[1].weight, linear.weight)  # type: ignore[index]
    assert not torch.equal(a[1].weight, c[1].weight)  # type: ignore[index]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy=krum", "f=2"], r"Krum needs n >= 2f \+ 3 .*got n=6, f=2.*Lower f .*or raise cohort"),
        (["population=20", "cohort=6", "strategy=krum", "f=2"], "got n=6, f=2"),
        (["strategy=flwr_fedavg", "server_optimizer=adam"], "server_optimizer has no effect on .*FedAvg"),
        (["strategy=flwr_fedavg", "server_optimizer.lr=0.5"], "server_optimizer has no effect on .*FedAvg"),
        (["strategy=sign_majority", "server_optimizer=adam"], "on a strategy that brings its own; change strategy.server_opt"),
    ],
)
def test_what_cannot_work_is_refused_before_training(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_into(tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


# A plug-in of somebody's own

PLUGIN = '''
"""Trust clients whose update points where the cohort points."""
from dataclasses import dataclass
import torch
from fedagg import Cohort, Weighting

@dataclass
class Agreeing(Weighting):
    floor: float = 0.0

    def __call__(self, cohort: Cohort) -> torch.Tensor:
        cosine = torch.cosine_similarity(cohort.updates, cohort.updates.mean(0, keepdim=True))
        weights = cosine.clamp(min=self.floor)
        return weights / weights.sum()
'''

PLUGIN_CONFIG = """
# my_configs/strategy/agreeing.yaml
_target_: fedagg.Strategy
weighting: {_target_: my_pkg.Agreeing, floor: 0.1}
"""


def test_the_widths_of_resnet18_are_a_setting() -> None:
    narrow = build(compose([*SMALL, "model=resnet18", "model.widths=[4,8]"])).clients.model
    assert [module.out_channels for module in narrow.modules() if isinstance(module, nn.Conv2d)][-1] == 8


def letters(dir: str | None = None) -> Dataset:
    """Rows of four numbers of characters, and the next one."""
    x = np.arange(240).reshape(60, 4) % 10
    return Dataset("letters", x, x[:, 0], x, x[:, 0], num_classes=10, source="typed in", tokens=True)


@pytest.mark.parametrize(("model", "fits"), [("mlp", False), ("logistic_regression", False), ("mean_embedding", True)])
def test_a_model_that_takes_characters_for_measurements_is_named(
    model: str, fits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    build(compose([*SMALL, f"data._target_={__name__}.letters", f"model={model}"]))
    warnings = [
        record.getMessage() for record in caplog.records if "letters holds numbers of characters" in record.getMessage()
    ]
    assert len(warnings) == (not fits)
    assert all("model=lstm, text_cnn and mean_embedding" in text for text in warnings)


def test_a_plug_in_is_one_class_and_one_yaml(tmp_path: Path) -> None:
    (tmp_path / "lib" / "my_pkg").mkdir(parents=True)
    (tmp_path / "lib" / "my_pkg" / "__init__.py").write_text(PLUGIN)
    (tmp_path / "my_configs" / "strategy").mkdir(parents=True)
    (tmp_path / "my_configs" / "strategy" / "agreeing.yaml").write_text(PLUGIN_CONFIG)
    command = [sys.executable, "-m", "fedagg.cli", "run", "strategy=agreeing", *SMALL, "attack=sign_flip"]
    command += ["hydra.run.dir=run", "--config-dir", "my_configs"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "lib")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Agreeing(floor=0.1)" in done.stdout
    run = read_run(tmp_path / "run")
    assert run.label["strategy"] == "agreeing"
    assert "--config-dir" in run.info["command"]

    namespace: dict[str, Any] = {}
    exec(PLUGIN, namespace)  # the same by hand, in this process
    experiment = build(compose([*SMALL, "attack=sign_flip"]))
    strategy = Strategy(weighting=namespace["Agreeing"](floor=0.1))
    result = fedagg.run(experiment.grid, strategy, experiment.model, rounds=3)
    assert run.series("accuracy")[1].tolist() == [value for _, value in result.series()]
    _, fedavg = run_into(tmp_path / "fedavg", "attack=sign_flip")
    assert run.series("accuracy")[1].tolist() != fedavg.series("accuracy")[1].tolist()


def test_a_weighting_stands_for_that_of_the_strategy_or_inside_it() -> None:
    def weighting(*overrides: str) -> object:
        strategy = build(compose([*SMALL, *overrides])).strategy
        assert isinstance(strategy, Strategy)
        return strategy.weighting

    assert weighting("weighting=own") == ByExamples()
    assert weighting("weighting=feddisco", "weighting.a=0.2") == FedDisco(a=0.2)
    assert weighting("strategy=scaffold", "local=scaffold", "weighting=feddisco") == FedDisco()
    assert weighting("strategy=fednova", "weighting=feddisco") == FedNova(FedDisco())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["strategy=trimmed_mean", "weighting=fedau"],
            "no effect; leave it out, or take a rule .*: strategy=mean, geometric_median or",
        ),
        (["strategy=flwr_fedavg", "weighting=fedau"], "weighting has no effect on flwr"),
        (
            ["strategy=fednova", "+strategy.weighting.base._target_=strategies.Uniform", "weighting=fedau"],
            "strategy.weighting.base says what",
        ),
        (["strategy=known_participation", "participation=class_biased", "cohort=3"], "set cohort=population"),
    ],
)
def test_a_weighting_that_cannot_be(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(compose([*SMALL, *overrides]))
