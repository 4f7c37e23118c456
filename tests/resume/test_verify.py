"""``fedagg verify``: the run is repeated elsewhere, compared to the bit, and left as it is."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fedagg import LocalGrid
from fedagg.results import read_run
from tests.commands import Command
from tests.resume.parts import KillAfter, Killed
from tests.resume.test_runs import files_in
from tests.running import run_into

WORLD = ["attack=alie", "server_optimizer=adam", "strategy=median", "cohort=5"]


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Path:
    run_into(tmp_path / "run", *WORLD)
    return tmp_path / "run"


def test_the_same(command: Command, run: Path) -> None:
    before, count = files_in(run), len(read_run(run).metrics)
    done = command("verify", run)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"same: {count} metrics and the final parameters of {run} came out again, to the bit\n"
    assert files_in(run) == before
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_a_byte_that_was_changed_is_found(command: Command, run: Path) -> None:
    table = run / "metrics.csv"
    lines = table.read_text().splitlines()
    (place,) = [i for i, line in enumerate(lines) if line.startswith("2,test,,accuracy,")]
    old = lines[place]
    lines[place] = old[:-1] + ("1" if old[-1] != "1" else "2")
    lines[place + 3] = "2,test,,nonsense,1.0"
    table.write_text("\n".join(lines) + "\n")
    done = command("verify", run)
    assert (done.code, done.err) == (1, "")
    assert done.out.splitlines() == [
        f"NOT the same: {run}",
        f"  first difference  {lines[place]} then, {old} now",
        "  final parameters  same",
    ]


def test_rows_that_are_missing(command: Command, run: Path) -> None:
    table = run / "metrics.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-1]))
    done = command("verify", run)
    assert done.code == 1
    assert f"first difference  {len(lines) - 1} lines then, {len(lines)} now" in done.out


def test_other_parameters_versions_and_machines_are_named(command: Command, run: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    torch, cores = info["versions"]["torch"], info["hardware"]["cores"]
    info["parameters"] = "0" * 64
    info["versions"]["torch"], info["hardware"]["cores"] = "1.0", 999
    (run / "run.json").write_text(json.dumps(info))
    done = command("verify", run)
    assert done.code == 1
    assert [line.split() for line in done.out.splitlines()] == [
        ["NOT", "the", "same:", str(run)],
        ["final", "parameters", "differ"],
        ["version", "torch:", "1.0", "then,", torch, "now"],
        ["hardware", "cores:", "999", "then,", str(cores), "now"],
    ]


@pytest.mark.parametrize(
    "overrides",
    [["engine=local"], ["engine.threads=1"], ["engine=local", "engine.executor=one_at_a_time"], ["engine.executor=batched"]],
    ids=" ".join,
)
def test_on_another_engine(command: Command, run: Path, overrides: list[str]) -> None:
    """The batched executor adds in another order, so its last bits differ, and that is what is said."""
    done = command("verify", run, *overrides)
    same = "engine.executor=batched" not in overrides
    assert (done.code, done.err) == (0 if same else 1, "")
    assert done.out.startswith("same: " if same else "NOT the same: ")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=1", "only engine settings can be changed when a run is verified; got seed=1"),
        ("attack=none", "only engine settings can be changed when a run is verified; got attack=none"),
        ("+engine.x=1", "only engine settings can be changed"),
        ("engine.threads", r"only engine .* got engine\.threads\. Write engine=NAME or engine\.KEY=VALUE"),
        ("engine.threads=[", "no viable alternative at input"),
        ("engine.treads=2", r"no setting engine\.treads \(did you mean threads\?\); this engine has device, "),
        ("engine.workerz=3", r"no setting engine\.workerz; this engine has .*threads"),
        ("engine=warp", r"engine has no choice warp.*Choices: auto, local"),
        ("engine.threads=0", "engine.threads must be an integer >= 1; got 0"),
        ("engine.device=tpu", "engine.device"),
    ],
)
def test_settings_that_cannot_be_asked_for(command: Command, run: Path, override: str, message: str) -> None:
    before = files_in(run)
    done = command("verify", run, override)
    assert done.code == 2
    assert re.match(f"error: {message}", done.err)
    assert files_in(run) == before


class Workers(LocalGrid):
    """A Grid with workers, as far as the config goes."""

    made: ClassVar[list[int]] = []

    def __init__(self, *args: Any, workers: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.made.append(workers)


def test_settings_reach_the_grid(command: Command, tmp_path: Path) -> None:
    """The Grid's own were interpolations, and are numbers in the config of a run that is done."""
    grid = [f"engine.grid._target_={__name__}.Workers", "+engine.grid.workers=${engine.workers}"]
    run_into(tmp_path / "run", "+engine.workers=2", *grid)
    assert command("verify", tmp_path / "run").code == 0
    assert command("verify", tmp_path / "run", "engine.workers=3").code == 0
    assert Workers.made == [2, 2, 3]


def test_a_run_that_is_not_complete(command: Command, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run_into(tmp_path / "run", watch=lambda _: [KillAfter(2)])
    done = command("verify", tmp_path / "run")
    assert done.code == 2
    message = (
        f"only a completed run can be verified; {tmp_path / 'run'} is failed. Go on with fedagg resume {tmp_path / 'run'}"
    )
    assert done.err == f"error: {message}\n"


def test_where_there_is_no_run(command: Command, tmp_path: Path) -> None:
    done = command("verify", tmp_path)
    assert (done.code, done.err) == (2, f"error: no run in {tmp_path}: it holds no run.json\n")


def test_a_config_of_another_version(command: Command, run: Path) -> None:
    config = run / "config.yaml"
    config.write_text(re.sub(r"^  worst_class: .*\n", "", config.read_text(), flags=re.MULTILINE))
    done = command("verify", run)
    assert (done.code, done.out) == (2, "")
    assert f"the config of {run} has no evaluation.worst_class, which this version of fedagg needs" in done.err
    assert "it was written by fedagg 0." in done.err
