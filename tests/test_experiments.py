"""The studies that come with fedagg: their files say what can be run, and each tells how, and what came of it."""

from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import fedagg.data
from fedagg import DatasetUnavailable
from fedagg.console import config_dir
from fedagg.experiment import build
from fedagg.overrides import choices_of
from fedagg.study import Study
from fedagg.study.resolve import resolve

STUDIES = sorted((config_dir().parent / "experiments").glob("*/study.yaml"))

every_study = pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.parent.name)


@every_study
def test_every_point_of_every_axis_can_be_built(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One axis at a time, beside the first points of the others. The data are read once."""
    for name in ("digits", "fashion_mnist"):
        monkeypatch.setattr(fedagg.data, name, cache(getattr(fedagg.data, name)))
    study = Study.load(file)
    jobs = {(axis, label): job for job in reversed(study.jobs()) for axis, label in job.axes.items()}
    assert {axis for axis, _ in jobs} == set(study.axes)
    for planned in resolve(study, list(jobs.values())):
        try:
            experiment = build(OmegaConf.create(planned.config))
        except DatasetUnavailable as error:
            pytest.skip(str(error))
        assert (experiment.cfg.attack.method is None) == (planned.choices["attack"] == "none")


@every_study
def test_a_study_says_what_it_asks_how_to_run_it_and_what_came_of_it(file: Path) -> None:
    name, page = file.parent.name, (file.parent / "README.md").read_text()
    assert file.read_text().startswith(f"# fedagg study {name}")
    assert Study.load(file).question.endswith("?")
    assert f"fedagg study {name}" in page
    assert (file.parent / "table.csv").exists()
    assert "table.csv" in page


def test_the_overview_leads_to_every_page() -> None:
    folder = config_dir().parent / "experiments"
    overview = (folder / "README.md").read_text()
    for page in folder.glob("*/README.md"):
        assert f"({page.parent.name}/README.md)" in overview


def test_the_studies_are_those_that_are_promised() -> None:
    names = {file.parent.name for file in STUDIES}
    assert {"quickstart", "attack_matrix", "breaking_point", "flower_under_fire"} <= names
    quickstart = Study.load("quickstart")
    assert {axis: len(points) for axis, points in quickstart.axes.items()} == {"strategy": 4, "attack": 4}
    assert len(quickstart.jobs()) == 48


def test_a_new_attack_joins_the_attack_matrix_by_its_config_alone() -> None:
    matrix = Study.load("attack_matrix")
    assert list(matrix.axes["attack"]) == [name for name in choices_of("attack") if not name.startswith("rank")]
    assert set(matrix.axes["strategy"]) >= {"fedavg", "median", "trimmed_mean", "krum", "multi_krum"}
    assert not any(name.startswith("flwr") for name in matrix.axes["strategy"])
