"""Tuning: on what clients hold out, in peace and under the worst attack, and the same however often it is stopped."""

import csv
import json
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

import fedagg.study.tune
from fedagg import ConfigError
from fedagg.results import read_run
from fedagg.study.tune import Tuned, tune
from tests.study.parts import files_in, load, table

pytest.importorskip("optuna")

ATTACKS = ["none", "ipm", "sign_flip_20"]
RATES = [0.0, 0.05, 0.5]
KEYS: dict[str, Any] = {
    "config": {"rounds": 3, "attack.fraction": 0.5, "population": 6},
    "axes": {
        "strategy": ["fedavg", "median"],
        "attack": {
            "none": {"attack": "none"},
            "ipm": {"attack": "ipm", "attack.method.epsilon": 0.001},
            "sign_flip_20": {"attack": "sign_flip", "attack.method.scale": 20.0},
        },
    },
    "seeds": 2,
    "tune": {"space": {"local.lr": RATES}, "trials": 6, "group": 3},
}


@pytest.fixture(scope="module", name="done")
def _done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Tuned]]:
    folder = tmp_path_factory.mktemp("tuned")
    found = tune(load(folder, workers=2, **KEYS), quiet=True)
    return folder / "store-tune", found


def scores(store: Path, split: str, metric: str) -> dict[tuple[str, str, str], float]:
    """(strategy, attack, rate) -> mean over seeds of the last value, read from the files of the runs alone."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for job in json.loads((store / "study.json").read_text())["jobs"]:
        with open(store / job["run"] / "metrics.csv", newline="") as file:
            last = [row for row in csv.DictReader(file) if (row["split"], row["metric"]) == (split, metric)][-1]
        place = job["axes"]
        values.setdefault((place["strategy"], place["attack"], place["local.lr"]), []).append(float(last["value"]))
    assert all(len(seeds) == 2 for seeds in values.values())
    return {place: fmean(seeds) for place, seeds in values.items()}


def test_the_best_setting_is_chosen_in_peace_and_under_the_worst_attack(done: tuple[Path, list[Tuned]]) -> None:
    store, found = done
    validation, test = scores(store, "clients", "accuracy_mean"), scores(store, "test", "accuracy")
    assert [each.place["strategy"] for each in found] == ["fedavg", "fedavg", "median", "median"]
    for peace, worst in (found[:2], found[2:]):
        strategy, rate = peace.place["strategy"], str(peace.setting["local.lr"])
        tried = {key: value for key, value in validation.items() if key[:2] == (strategy, "none")}
        assert peace.attack == "none"
        assert peace.validation == max(tried.values()) == validation[strategy, "none", rate]
        assert rate != "0.0"  # which learns nothing
        hostile = {attack: validation[strategy, attack, rate] for attack in ATTACKS[1:]}
        assert worst.attack == min(hostile, key=lambda attack: hostile[attack]) == "sign_flip_20"
        tried = {key: value for key, value in validation.items() if key[:2] == (strategy, worst.attack)}
        assert worst.validation == max(tried.values())
        for each in (peace, worst):
            assert each.test == test[strategy, each.attack, str(each.setting["local.lr"])]


def test_the_table_says_the_same(done: tuple[Path, list[Tuned]]) -> None:
    store, found = done
    rows = table(store / "tuned.csv")
    assert list(rows[0]) == ["strategy", "attack", "local.lr", "validation", "test_accuracy"]
    assert [(row["strategy"], row["attack"], float(row["local.lr"]), float(row["validation"])) for row in rows] == [
        (each.place["strategy"], each.attack, each.setting["local.lr"], each.validation) for each in found
    ]


def test_lists_are_tried_out_where_the_trials_allow_it(tmp_path: Path) -> None:
    rates, epochs = [0.0, 0.05, 0.5], [1, 2]
    search = {"space": {"local.lr": rates, "local.epochs": epochs}, "trials": 6, "group": 2}
    keys = {**KEYS, "axes": {"strategy": ["median"]}, "seeds": 1, "tune": search}
    (found,) = tune(load(tmp_path, workers=2, **keys), quiet=True)
    runs = [read_run(path.parent) for path in (tmp_path / "store-tune").glob("*/run.json")]
    tried = {(run.config["local"]["lr"], run.config["local"]["epochs"]): run for run in runs}
    assert len(runs) == 6
    assert set(tried) == set(product(rates, epochs))
    values = {setting: run.series("accuracy_mean", "clients")[1][-1] for setting, run in tried.items()}
    assert values[found.setting["local.lr"], found.setting["local.epochs"]] == max(values.values()) == found.validation


def test_called_again_with_one_worker_it_repeats_its_choices_and_runs_nothing(done: tuple[Path, list[Tuned]]) -> None:
    store, found = done
    before = files_in(store)
    assert tune(load(store.parent, workers=1, **KEYS), quiet=True) == found
    assert files_in(store) == before


def test_one_worker_finds_what_two_found(done: tuple[Path, list[Tuned]], tmp_path: Path) -> None:
    keys = {**KEYS, "axes": {**KEYS["axes"], "strategy": ["fedavg"]}}
    assert tune(load(tmp_path, workers=1, **keys), quiet=True) == [
        each for each in done[1] if each.place["strategy"] == "fedavg"
    ]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({}, "nothing to tune; say what under tune"),
        ({"space": {"local.lr": [0.1]}, "metric": "accuracy"}, "never chosen on the test set"),
        ({"space": {"local.lr": [0.1]}, "metric": "test/loss"}, "never chosen on the test set"),
        ({"space": {"local.lr": [0.1]}, "trails": 3}, "tune has no trails \\(did you mean trials\\?\\)"),
        ({"space": {"local.lr": [0.1]}, "trials": 0}, "tune.trials must be an integer >= 1; got 0"),
        ({"space": {"local.lr": "0.1"}}, "local.lr must be a list of choices, or {low, high, log}; got 0.1"),
        ({"space": {"local.lr": {"low": 1.0, "high": 0.1}}}, "tune.space.local.lr: "),
        ({"space": [0.1]}, "tune.space must be a mapping"),
        ({"space": {"local.lrr": [0.1]}}, "no setting local.lrr"),
    ],
)
def test_impossible_searches(search: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        tune(load(tmp_path, **{**KEYS, "tune": search}), quiet=True)


def test_listed_runs_cannot_be_tuned(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="listed runs cannot be tuned"):
        tune(load(tmp_path, **KEYS, runs=[{"rounds": 2}]), quiet=True)


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fedagg.study.tune, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install 'fedagg\\[tune\\]'"):
        tune(load(tmp_path, **KEYS), quiet=True)
