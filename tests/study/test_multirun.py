"""A sweep of Hydra's is a study: the same names, the same table, and what is done is not done again."""

from pathlib import Path

import pytest

from fedagg.results import read_run
from fedagg.study import Store, run_study
from tests.commands import Command
from tests.study.parts import FLAGS, files_in, load, table

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # Hydra leaves the log of a job open
SWEEP = ["-m", *FLAGS, "strategy=mean,median", "local.lr=0.1,0.30"]
AXES = {"strategy": ["mean", "median"], "local.lr": [0.1, 0.3]}


def runs_in(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/run.json")}


def in_runs(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_in(folder).items() if "/" in name and not name.endswith(".log")}


def test_a_sweep_and_a_study(command: Command, tmp_path: Path) -> None:
    """They name runs alike, make the same table, and go on with each other's stores."""
    swept = tmp_path / "swept"
    done = command("run", *SWEEP, "seed=0,1", f"hydra.sweep.dir={swept}")
    assert (done.code, done.err) == (0, "")
    assert f"table     {swept}/results.csv\n" in done.out
    study = load(tmp_path / "mine", axes=AXES, seeds=2, question="Which?", report={"metric": "loss"}, workers=1)
    listed = {(job.axes["strategy"], job.axes["local.lr"], job.seed) for job in study.jobs()}
    assert {(job.axes["strategy"], job.axes["local.lr"], job.seed) for job in Store(swept).entries()} == listed
    before = in_runs(swept)
    there = study.with_overrides([f"study.store={swept}"])
    assert str(run_study(there, quiet=True)) == "8 of 8 runs complete"
    assert in_runs(swept) == before
    assert len(Store(swept).entries()) == 8
    manifest = Store(swept).manifest()
    assert (manifest["question"], manifest["report"]) == ("Which?", {"metric": "loss"})

    larger = command("run", *SWEEP, "seed=0,1,2", f"hydra.sweep.dir={swept}")
    assert larger.code == 0
    assert larger.out.count("complete  ") == 8
    after = in_runs(swept)
    assert {name: after[name] for name in before} == before
    assert len(runs_in(swept)) == 12
    assert {row["seed"] for row in table(swept / "results.csv")} == {"0", "1", "2"}
    assert Store(swept).manifest()["question"] == "Which?"  # the sweep did not ask another

    assert str(run_study(study.with_overrides([f"study.store={swept}", "seed=0,1,2"]), quiet=True)) == "12 of 12 runs complete"
    assert in_runs(swept) == after


def test_the_command_of_a_job_repeats_it(command: Command, tmp_path: Path) -> None:
    command("run", "-m", *FLAGS, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'swept'}")
    job = Store(tmp_path / "swept").entries()[1]
    assert (job.axes, job.seed, job.rounds) == ({}, 1, 2)
    assert command(*job.command.split()[1:], "hydra.run.dir=alone").code == 0
    one, other = read_run(tmp_path / "alone"), read_run(tmp_path / "swept" / job.run)
    assert one.info["parameters"] == other.info["parameters"]


def test_what_sweeps_is_an_axis_however_it_is_written(command: Command, tmp_path: Path) -> None:
    """Also beside flags, deletions and plug-ins; labels are those of a study."""
    (tmp_path / "own" / "attack").mkdir(parents=True)
    (tmp_path / "own" / "attack" / "mine.yaml").write_text("defaults: [sign_flip]\n")
    words = ["--config-dir=own", "-m", *FLAGS, "attack=mine", "evaluation.clients=true", "+note='a, b',1e-1"]
    added = ["+callbacks.x._target_=fedagg.Callback", "~callbacks.x", f"hydra.sweep.dir={tmp_path / 'swept'}"]
    done = command("run", *words, *added)
    assert (done.code, done.err) == (0, "")
    assert [entry.axes for entry in Store(tmp_path / "swept").entries()] == [{"+note": "a, b"}, {"+note": "0.1"}]
