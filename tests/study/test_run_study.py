"""Whole studies on workers of their own: one table, whatever happens to workers and to the study itself."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedagg import ConfigError
from fedagg.results import read_run
from fedagg.study import Store, Study, run_study
from fedagg.study.run import Summary
from tests.running import run_into
from tests.study.parts import TINY, files_in, load, name_of, table
from tests.study.plugins import plugin

SETTINGS = {"population": 4, "rounds": 2}
GRID = {"axes": {"strategy": ["mean", "median"], "local.lr": [0.1, 0.3]}, "seeds": 2}
Made = tuple[Study, Summary]


def quiet(study: Study, **flags: bool) -> Summary:
    return run_study(study, quiet=True, **flags)


@pytest.fixture(name="grid", scope="module")
def _grid(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Eight runs on two workers."""
    study = load(tmp_path_factory.mktemp("grid"), **GRID, workers=2)
    return study, quiet(study)


@pytest.fixture(name="singly", scope="module")
def _singly(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The table made by hand, from the same runs one by one in this process."""
    folder, rows = tmp_path_factory.mktemp("singly"), [["run", "seed", "strategy", "local.lr"]]
    for strategy in ("mean", "median"):
        for rate in ("0.1", "0.3"):
            for seed in ("0", "1"):
                words = [*(f"{key}={value}" for key, value in TINY.items()), f"strategy={strategy}", f"local.lr={rate}"]
                directory = folder / f"{strategy}{rate}{seed}"
                run_into(directory, *words, f"seed={seed}")
                with open(directory / "metrics.csv", newline="") as file:
                    head, *lines = csv.reader(file)
                run = name_of(f"strategy={strategy}", f"local.lr={rate}", f"seed={seed}")
                rows += [[run, seed, strategy, rate, *line] for line in lines]
    return [rows[0] + head, *rows[1:]]


def test_the_table(grid: Made, singly: list[list[str]]) -> None:
    study, summary = grid
    assert (summary.exit_code, str(summary)) == (0, "8 of 8 runs complete")
    with open(study.store / "results.csv", newline="") as file:
        assert list(csv.reader(file)) == singly
    assert len(singly) > 8 * 3


def test_what_lies_in_the_store(grid: Made) -> None:
    study, summary = grid
    runs = {path.name for path in study.store.iterdir() if path.is_dir()}
    files = {path.name for path in study.store.iterdir() if path.is_file()} - {"results.parquet"}
    assert (runs, files) == (set(summary.outcomes), {"study.json", "results.csv"})
    for name in runs:
        run = read_run(study.store / name)
        assert (run.status, run.info["label"]["model"]) == ("completed", "logistic_regression")
        assert run.info["command"].startswith("fedagg run population=4 rounds=2 ")
        assert not (study.store / name / "checkpoints").exists()


def test_a_second_call_runs_nothing(grid: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    study, _ = grid
    before = files_in(study.store)
    monkeypatch.setattr("fedagg.study.run.LocalCrew", lambda *_: pytest.fail("no worker is needed"))
    assert str(quiet(study)) == "8 of 8 runs complete"
    after = files_in(study.store)
    assert {name: data for name, data in after.items() if name != "results.parquet"} == {
        name: data for name, data in before.items() if name != "results.parquet"
    }


def test_a_larger_one_runs_what_is_missing(grid: Made, tmp_path: Path) -> None:
    """Two studies that share runs share them; what one said stays in the manifest of the store."""
    study, _ = grid
    before = {name: data for name, data in files_in(study.store).items() if "/" in name}
    smaller = study.with_overrides(["strategy=mean", "local.lr=0.1", "seed=0,5"])
    summary = quiet(smaller)
    assert str(summary) == "2 of 2 runs complete"
    after = files_in(study.store)
    assert {name: after[name] for name in before} == before
    new = {name.split("/")[0] for name in after if "/" in name} - {name.split("/")[0] for name in before}
    assert new == {name_of("strategy=mean", "local.lr=0.1", "seed=5")}
    rows = {(row["strategy"], row["local.lr"], row["seed"]) for row in table(study.store / "results.csv")}
    assert rows == {(s, lr, seed) for s in ("mean", "median") for lr in ("0.1", "0.3") for seed in "01"} | {
        ("mean", "0.1", "5")
    }


def test_how_it_is_carried_out_enters_no_job_twice(grid: Made) -> None:
    study, _ = grid
    jobs = len(Store(study.store).entries())
    quiet(study.with_overrides(["checkpoint.every=1"]))
    assert len(Store(study.store).entries()) == jobs


# What happens to runs and workers


@pytest.fixture(name="mixed", scope="module")
def _mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path, Summary]:
    """One run that fails, one whose worker is killed once, one whose worker always dies, one that prints, one that is good."""
    folder = tmp_path_factory.mktemp("mixed")
    points = {
        "fails": plugin("Fails", unless=str(folder / "mended")),
        "dies_once": plugin("Dies", last=2, count=str(folder / "once")) | {"checkpoint.every": 1},
        "always_dies": plugin("Dies", last=1, count=str(folder / "always"), times=2),
        "prints": plugin("Prints"),
        "good": {},
    }
    study = load(folder, axes={"case": points}, config={"rounds": 3}, workers=2)
    return study, folder, quiet(study)


def by_case(study: Study) -> dict[str, str]:
    return {entry.axes["case"]: entry.run for entry in Store(study.store).entries()}


def test_failures_stop_nobody(mixed: tuple[Study, Path, Summary]) -> None:
    study, _, summary = mixed
    runs = by_case(study)
    assert {case: summary.outcomes[run].status for case, run in runs.items()} == {
        "fails": "failed",
        "dies_once": "completed",
        "always_dies": "failed",
        "prints": "completed",
        "good": "completed",
    }
    assert (summary.exit_code, str(summary)) == (1, "3 of 5 runs complete, 2 failed")
    assert summary.outcomes[runs["fails"]].error == "ValueError: boom"
    assert summary.outcomes[runs["always_dies"]].error == "its worker process was killed by signal 9, 2 times"
    for case in ("fails", "always_dies"):  # and it is on record
        state = Store(study.store).state(runs[case])
        assert (state.status, state.error) == ("failed", summary.outcomes[runs[case]].error)
    assert "ValueError: boom" in (study.store / runs["fails"] / "fedagg.log").read_text()


def test_the_table_holds_what_is_complete(mixed: tuple[Study, Path, Summary]) -> None:
    study, _, _ = mixed
    rows = table(study.store / "results.csv")
    assert list(dict.fromkeys(row["case"] for row in rows)) == ["dies_once", "prints", "good"]
    measured = {
        case: [tuple(row.values())[3:] for row in rows if row["case"] == case] for case in ("dies_once", "prints", "good")
    }
    assert measured["dies_once"] == measured["prints"] == measured["good"] != []


def test_failed_runs_are_left_alone_until_they_are_to_be_tried(mixed: tuple[Study, Path, Summary]) -> None:
    study, folder, first = mixed
    again = quiet(study)
    assert {run: outcome.status for run, outcome in again.outcomes.items()} == {
        run: outcome.status for run, outcome in first.outcomes.items()
    }
    assert again.exit_code == 1
    assert len(list((folder / "always").iterdir())) == 2  # nobody tried
    (folder / "mended").touch()
    assert quiet(study, retry_failed=True).exit_code == 0
    cases = list(dict.fromkeys(row["case"] for row in table(study.store / "results.csv")))
    assert cases == ["fails", "dies_once", "always_dies", "prints", "good"]  # in their places


def test_fail_fast(tmp_path: Path) -> None:
    """With one worker the runs behind the first failure are not begun."""
    points = {
        "good": {},
        "fails": plugin("Fails", unless=str(tmp_path / "never")),
        "late": {"rounds": 3},
        "later": {"rounds": 4},
    }
    summary = quiet(load(tmp_path, axes={"case": points}, workers=1), fail_fast=True)
    assert sorted(outcome.status for outcome in summary.outcomes.values()) == ["completed", "failed"]
    assert (summary.exit_code, str(summary)) == (1, "1 of 4 runs complete, 1 failed, 2 left")


def test_workers_that_cannot_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end before they have read a word; the study says with which words."""
    monkeypatch.setenv("PYTHONSTARTUP", "")
    monkeypatch.setattr("fedagg.study.crew.sys.executable", "/bin/false")
    summary = quiet(load(tmp_path, workers=1))
    assert [outcome.error for outcome in summary.outcomes.values()] == ["its worker process ended with exit code 1, 2 times"]


# How many workers


Shape = Callable[..., tuple[int, int]]


@pytest.fixture(name="shape")
def _shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shape:
    from fedagg.study.resolve import resolve
    from fedagg.study.run import shape

    def of(cores: int, *words: str, **keys: Any) -> tuple[int, int]:
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
        study = load(tmp_path, **keys).with_overrides(words)
        return shape(study, resolve(study, study.jobs()))

    return of


@pytest.mark.parametrize(
    ("cores", "words", "expected"),
    [
        (8, [], (8, 1)),
        (8, ["study.workers=3"], (3, 1)),
        (8, ["engine.threads=3"], (2, 3)),
        (2, ["engine.threads=5"], (1, 5)),
        (8, ["engine.threads=1,4"], (2, 4)),
        (8, ["study.launcher=ray"], (1, 1)),
        (8, ["study.launcher=ray", "study.workers=20"], (20, 1)),
        (8, ["engine=ray", "study.workers=1"], (1, 1)),
    ],
)
def test_workers_and_threads(shape: Shape, cores: int, words: list[str], expected: tuple[int, int]) -> None:
    assert shape(cores, *words) == expected


def test_more_than_the_cores(shape: Shape, capsys: pytest.CaptureFixture[str]) -> None:
    assert shape(4, "study.workers=3", "engine.threads=2") == (2, 2)
    assert capsys.readouterr().err == "2 workers: 3 of 2 threads each are more than 4 cores\n"


@pytest.mark.parametrize("words", [[], ["study.workers=2"], ["study.launcher=ray", "study.workers=1"]])
def test_workers_in_workers(shape: Shape, words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"engine=ray has workers of its own: set study\.workers=1, or another engine"):
        shape(8, "engine=ray,local", *words)


def test_a_store_of_another_version(tmp_path: Path) -> None:
    study = load(tmp_path)
    study.store.mkdir()
    (study.store / "study.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(ConfigError, match="has format 2"):
        quiet(study)
    assert [path.name for path in study.store.iterdir()] == ["study.json"]


def test_a_store_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(ConfigError, match=r"study\.store=.*store cannot be made: File exists"):
        quiet(load(tmp_path))
