"""Rows that are the points of a study's axis: what belongs to a point is no setting, what does not still is."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from fedagg import ConfigError
from fedagg.report import Report, report
from fedagg.study import Study, run_study
from tests.commands import Command
from tests.study.parts import load

AXES = {
    "method": {
        "slow": {"strategy": "fedavg", "local.lr": 0.01},
        "quick": {"strategy": "fedavg", "local.lr": 0.5},
        "careful": {"strategy": "fedavg", "local": "fedprox", "local.lr": 0.1, "server_optimizer": "adam"},
    },
    "world": {"alike": {"partition": "iid"}, "skewed": {"partition": "dirichlet", "partition.alpha": 0.1}},
}
KEYS: dict[str, Any] = {"axes": AXES, "seeds": 2, "workers": 1, "report": {"rows": "method"}}


@pytest.fixture(scope="module", name="study")
def _study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = load(tmp_path_factory.mktemp("points"), **KEYS)
    run_study(study, quiet=True)
    return study


def made(of: Study, out: Path, **how: Any) -> Report:
    return report(of.store, out=out, quiet=True, **how)


def test_a_point_is_a_row_and_the_other_axes_are_settings(study: Study, tmp_path: Path) -> None:
    tables = made(study, tmp_path, rows="method").tables
    assert {table.title for table in tables} == {"partition=dirichlet", "partition=iid"}
    for table in tables:
        assert sorted(strategy for strategy, _ in table.cells) == ["careful", "quick", "slow"]


def test_a_cell_is_of_the_runs_of_its_point(study: Study, tmp_path: Path) -> None:
    """Means over seeds, against those of the runs that the manifest names for the point."""
    jobs = json.loads((study.store / "study.json").read_text())["jobs"]
    for table in made(study, tmp_path, rows="method").tables:
        world = {"partition=iid": "alike", "partition=dirichlet": "skewed"}[table.title]
        for (point, _), cell in table.cells.items():
            values = []
            for job in jobs:
                if job["axes"] == {"method": point, "world": world}:
                    with open(study.store / job["run"] / "metrics.csv", newline="") as file:
                        rows = [row for row in csv.DictReader(file) if (row["split"], row["metric"]) == ("test", "accuracy")]
                    values.append(float(rows[-1]["value"]))
            assert len(values) == 2
            assert cell.estimate.mean == pytest.approx(sum(values) / 2)


def test_by_default_every_learning_rate_is_a_setting(study: Study, tmp_path: Path) -> None:
    assert len(made(study, tmp_path).tables) == 6


def test_what_does_not_follow_from_the_point_is_a_setting(tmp_path: Path) -> None:
    """The same points with another number of rounds, in the same store."""
    study = load(tmp_path / "grown", **{**KEYS, "axes": {"method": AXES["method"]}})
    run_study(study, quiet=True)
    run_study(study.with_overrides(["rounds=1"]), quiet=True)
    tables = made(study, tmp_path, rows="method").tables
    assert {table.title for table in tables} == {"rounds=1", "rounds=2"}


def test_an_attack_that_follows_from_the_point_is_not_taken_for_none(tmp_path: Path) -> None:
    methods = {"mean": {"strategy": "fedavg", "attack": "ipm"}, "median": {"strategy": "median", "attack": "sign_flip"}}
    study = load(tmp_path / "own", **{**KEYS, "axes": {"method": methods}})
    run_study(study, quiet=True)
    (table,) = made(study, tmp_path, rows="method").tables
    assert sorted(table.cells) == [("mean", "each its own"), ("median", "each its own")]
    assert table.real_attacks == ["each its own"]


def test_on_the_command_line(study: Study, command: Command, tmp_path: Path) -> None:
    """The study's own wish holds; the page says with which command it was made; another axis can be asked for."""
    assert command("report", study.store, "--out", tmp_path / "a").code == 0
    assert "--rows method" in (tmp_path / "a" / "table.md").read_text()
    assert command("report", study.store, "--out", tmp_path / "b", "--rows", "world").code == 0
    assert "| skewed |" in (tmp_path / "b" / "table.md").read_text()


def test_what_is_on_no_such_axis_is_refused(study: Study, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"rows=speed: .* has no point on that axis; the axes of its study are method, world"
    ):
        made(study, tmp_path, rows="speed")
    run = next(study.store.glob("*/run.json")).parent
    alone = tmp_path / "alone" / run.name
    alone.parent.mkdir()
    run.rename(alone)
    try:
        with pytest.raises(ConfigError, match=r"rows=method: .* no study placed it on axes"):
            report(alone, out=tmp_path, quiet=True, rows="method")
    finally:
        alone.rename(run)
    with pytest.raises(ConfigError, match=r"report\.rows has no methods \(did you mean method\?\)"):
        load(tmp_path / "wrong", **{**KEYS, "report": {"rows": "methods"}})
