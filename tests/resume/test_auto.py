"""``resume=auto`` and ``fedagg resume``: which run they mean, what they say, and what they leave alone."""

import json
from pathlib import Path

import pytest

from fedagg.disk import Lock
from fedagg.results import find_runs, read_run
from tests.commands import Command
from tests.resume.parts import KillAfter, Killed
from tests.resume.test_runs import Hoarding, files_in
from tests.running import SMALL, run_into

assert Hoarding
WANTED = ["rounds=4", "checkpoint.every=2", "attack=ipm"]
RUN = ["run", *SMALL, *WANTED]


def leave(directory: Path, *overrides: str, started: str = "2026-01-01", after: int | None = 3) -> Path:
    """Leave a run that died after a round, or a complete one."""
    if after is None:
        run_into(directory, *WANTED, *overrides)
    else:
        with pytest.raises(Killed):
            run_into(directory, *WANTED, *overrides, watch=lambda _: [KillAfter(after)])
    note(directory, started=started, **({} if after is None else {"status": "running"}))
    return directory


def note(directory: Path, **fields: str) -> None:
    file = directory / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def runs(folder: Path) -> dict[str, str]:
    return {run.path.name: run.status for run in find_runs(folder)}


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The metrics of a run that nobody interrupted."""
    _, run = run_into(tmp_path_factory.mktemp("whole") / "run", *WANTED)
    return (run.path / "metrics.csv").read_bytes()


def test_fedagg_resume(command: Command, tmp_path: Path, whole: bytes) -> None:
    leave(tmp_path / "run")
    done = command("resume", tmp_path / "run")
    assert (done.code, done.err) == (0, "")
    shown = [line for line in done.out.splitlines() if "  round " in line]
    assert [line.split("  round ")[1].split()[0] for line in shown] == ["3/4", "4/4"]
    assert f"output    {tmp_path / 'run'}" in done.out
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == whole
    again = command("resume", tmp_path / "run")
    assert again.code == 2
    assert again.err == f"error: the run in {tmp_path / 'run'} is complete; there is nothing to go on with\n"


def test_fedagg_resume_where_there_is_no_run(command: Command, tmp_path: Path) -> None:
    done = command("resume", tmp_path)
    assert (done.code, done.err) == (2, f"error: no run in {tmp_path}: it holds no run.json\n")


def test_the_directory_that_was_named(command: Command, tmp_path: Path, whole: bytes) -> None:
    """Unfinished it goes on; complete it is left as it is; empty it is begun, whatever lies beside it."""
    leave(tmp_path / "named")
    leave(tmp_path / "beside")
    done = command(*RUN, "resume=auto", "hydra.run.dir=named")
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "named" / "metrics.csv").read_bytes() == whole
    before = files_in(tmp_path / "named")
    done = command(*RUN, "resume=auto", "hydra.run.dir=named")
    assert (done.code, done.out, done.err) == (0, f"complete  {tmp_path / 'named'}\n", "")
    assert files_in(tmp_path / "named") == before
    assert command(*RUN, "resume=auto", "hydra.run.dir=new").code == 0
    assert runs(tmp_path) == {"named": "completed", "beside": "running", "new": "completed"}


@pytest.mark.parametrize("after", [3, None], ids=["unfinished", "complete"])
def test_another_run_in_the_directory_that_was_named(command: Command, tmp_path: Path, after: int | None) -> None:
    leave(tmp_path / "named", "seed=7", after=after)
    before = files_in(tmp_path / "named")
    done = command(*RUN, "resume=auto", "hydra.run.dir=named")
    assert done.code == 2
    where = Path("named") if after else tmp_path / "named"
    assert done.err.splitlines() == [f"error: {tmp_path / where} holds a run of another config:", "  seed: 7 there, 0 here"]
    assert {name: data for name, data in files_in(tmp_path / "named").items() if name != "fedagg.log"} == before


def test_the_newest_unfinished_run_of_this_config(command: Command, tmp_path: Path, whole: bytes) -> None:
    """Not one of another config, even if its open settings could be filled in alike; not one that could not be saved; not
    one that another process is at; not a folder that cannot be read."""
    runs_ = tmp_path / "runs"
    leave(runs_ / "old", started="2026-01-01")
    wanted = leave(runs_ / "wanted", started="2026-01-02")
    leave(runs_ / "complete", started="2026-01-08", after=None)
    leave(runs_ / "another seed", "seed=1", started="2026-01-03")
    leave(runs_ / "another f", "f=1", started="2026-01-04")
    busy = leave(runs_ / "busy", started="2026-01-05")
    unsaved = leave(runs_ / "unsaved", started="2026-01-06")
    (unsaved / "checkpoints" / "refused.txt").write_text("it was secret\n")
    broken = leave(runs_ / "broken", started="2026-01-07")
    (broken / "config.yaml").write_text("{")
    with Lock(busy):
        done = command(*RUN, "resume=auto")
    assert (done.code, done.err) == (0, "")
    assert f"output    {wanted.relative_to(tmp_path)}" in done.out
    assert (wanted / "metrics.csv").read_bytes() == whole
    unfinished = {run.path.name for run in find_runs(runs_) if run.status == "running"}
    assert unfinished == {"old", "another seed", "another f", "busy", "unsaved"}
    assert len(list(runs_.iterdir())) == 8  # and no empty directory for a run that went on elsewhere


def test_nothing_to_go_on_with(command: Command, tmp_path: Path, whole: bytes) -> None:
    leave(tmp_path / "runs" / "another", "seed=1")
    assert command(*RUN, "resume=auto").code == 0
    (new,) = [run for run in find_runs(tmp_path / "runs") if run.path.name != "another"]
    assert new.status == "completed"
    assert (new.path / "metrics.csv").read_bytes() == whole
    done = command(*RUN, "resume=auto")
    assert (done.code, done.out) == (0, f"complete  {new.path.relative_to(tmp_path)}\n")
    assert len(find_runs(tmp_path / "runs")) == 2


def test_the_very_first_run(command: Command, tmp_path: Path, whole: bytes) -> None:
    assert command(*RUN, "resume=auto").code == 0
    (run,) = find_runs(tmp_path / "runs")
    assert (run.path / "metrics.csv").read_bytes() == whole


def test_a_directory_that_was_half_made_is_begun(command: Command, tmp_path: Path, whole: bytes) -> None:
    run = leave(tmp_path / "run", after=0)
    for name in ("config.yaml", "metrics.csv", "timing.csv"):
        (run / name).unlink()
    assert command(*RUN, "resume=auto", "hydra.run.dir=run").code == 0
    assert (run / "metrics.csv").read_bytes() == whole


def test_without_it_a_run_is_begun_anew(command: Command, tmp_path: Path) -> None:
    leave(tmp_path / "runs" / "old")
    assert command(*RUN).code == 0
    assert sorted(runs(tmp_path / "runs").values()) == ["completed", "running"]
    done = command(*RUN, "hydra.run.dir=runs/old")
    assert done.code == 2
    assert "runs/old already holds a run" in done.err


@pytest.mark.parametrize("value", ["true", "latest", "runs/old", "1"])
def test_other_values(command: Command, tmp_path: Path, value: str) -> None:
    done = command(*RUN, f"resume={value}")
    assert done.code == 2
    shown = {"true": "True"}.get(value, value)
    assert done.err == f"error: resume must be auto or null; got {shown}. To go on with one run: fedagg resume RUN_DIR\n"
    assert not list(tmp_path.rglob("run.json"))


def test_a_sweep_goes_on(command: Command, tmp_path: Path) -> None:
    """Of three jobs one is complete and one unfinished, in sweeps of other days: only what is missing is run."""
    runs_ = tmp_path / "runs"
    complete = leave(runs_ / "monday" / "0", "seed=0", after=None)
    unfinished = leave(runs_ / "tuesday" / "1", "seed=1")
    before = files_in(complete)
    done = command(*RUN, "seed=0,1,2", "resume=auto", "-m")
    assert done.code == 0, done.err
    assert files_in(complete) == before
    assert read_run(unfinished).status == "completed"
    found = find_runs(runs_)
    assert sorted((run.seed, run.status) for run in found) == [(0, "completed"), (1, "completed"), (2, "completed")]
    rounds = [line.split("seed ")[1] for line in done.out.splitlines() if "  round " in line]
    assert [(line.split()[0], line.split()[2]) for line in rounds] == [
        *[("1", f"{number}/4") for number in (3, 4)],
        *[("2", f"{number}/4") for number in range(5)],
    ]


def test_a_sweep_into_a_named_folder_goes_on(command: Command, tmp_path: Path) -> None:
    sweep = ["run", "-m", *RUN[1:], "seed=0,1", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.num}"]
    leave(tmp_path / "sweep" / "0", "seed=0")
    leave(tmp_path / "beside", "seed=1")
    assert command(*sweep, "resume=auto").code == 0
    assert runs(tmp_path) == {"0": "completed", "1": "completed", "beside": "running"}
    assert command(*sweep, "resume=auto").code == 0
    assert command(*sweep).code == 0  # a sweep never repeats what is complete
    assert runs(tmp_path) == {"0": "completed", "1": "completed", "beside": "running"}
