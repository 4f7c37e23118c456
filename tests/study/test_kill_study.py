"""A study that is stopped, killed, or run twice at once ends with the bytes of one that nobody disturbed."""

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedagg.results import read_run
from fedagg.study import Store, Study, run_study
from tests.commands import start
from tests.study.parts import load
from tests.study.plugins import plugin

Begin = Callable[..., "subprocess.Popen[str]"]
# Rounds of a moment, so that there is time to kill
SLOW: dict[str, Any] = {"config": {"rounds": 20, "checkpoint.every": 1, **plugin("Slow", seconds=0.05)}}
FOUR: dict[str, Any] = {**SLOW, "axes": {"strategy": ["mean", "median"]}, "seeds": 2, "workers": 2}


@pytest.fixture(name="begin")
def _begin() -> Iterator[Begin]:
    """Start the command on a study; nothing outlives the test."""
    begun: list[subprocess.Popen[str]] = []

    def begin(study: Study, *words: str) -> "subprocess.Popen[str]":
        begun.append(start("study", str(study.folder), *words, cwd=Path.cwd()))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """How it ends undisturbed."""
    study = load(tmp_path_factory.mktemp("whole"), **FOUR)
    assert run_study(study, quiet=True).exit_code == 0
    return ends(study)


def ends(study: Study) -> dict[str, bytes]:
    """The table, and the hash of every run's final parameters."""
    runs = {run: read_run(study.store / run) for run in runs_of(study)}
    return {"table": (study.store / "results.csv").read_bytes()} | {
        name: str(run.info["parameters"]).encode() for name, run in runs.items()
    }


def wait_for(what: Callable[[], bool], process: "subprocess.Popen[str] | None" = None, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runs_of(study: Study) -> list[str]:
    return [entry.run for entry in Store(study.store).entries()]


def states(study: Study) -> Counter[str]:
    return Counter(state.status for state in Store(study.store).states(runs_of(study)).values())


def rounds(study: Study) -> int:
    """How many rounds are on record, in all runs together."""
    return sum(file.read_text().count(",train,") for file in study.store.glob("*/timing.csv"))


def workers_of(pid: int) -> list[int]:
    """The processes whose parent this is."""
    children = [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    return [int(child) for child in children if b"fedagg.study.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]


def gone(pid: int) -> bool:
    """Whether a process has ended. A worker whose parent was killed may wait for init to take note."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_stopped_and_killed(begin: Begin, tmp_path: Path, whole: dict[str, bytes]) -> None:
    """Three times; with SIGKILL its workers go because their parent has gone. benchmarks/kill_study.py does it more often."""
    study = load(tmp_path / "mine", **FOUR)
    stopped = 0
    for done, number, code in [
        (5, signal.SIGKILL, -9),
        (25, signal.SIGTERM, 143),
        (45, signal.SIGKILL, -9),
    ]:
        process = begin(study)
        wait_for(lambda done=done: rounds(study) >= done, process)  # type: ignore[misc]
        workers = workers_of(process.pid)
        assert len(workers) == 2
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        wait_for(lambda workers=workers: all(map(gone, workers)), seconds=10)  # type: ignore[misc]
        wait_for(lambda: not states(study)["running"], seconds=10)  # a process has gone a moment before its locks have
        assert states(study)["stopped"] <= 2
        stopped += states(study)["stopped"]
        assert set(states(study)) <= {"running", "stopped", "waiting", "completed"}
        if code > 0:
            assert "stopping after these rounds; once more to stop at once\n" in out
            assert err == f"stopped; go on with: fedagg study {study.folder}\n"
    assert stopped > 0  # not every time between two runs
    assert run_study(study, quiet=True).exit_code == 0
    assert ends(study) == whole


def test_a_second_signal_stops_at_once(begin: Begin, tmp_path: Path) -> None:
    study = load(tmp_path / "mine", config=plugin("Slow", seconds=100))
    process = begin(study)
    wait_for(lambda: any(study.store.glob("*/timing.csv")), process)
    workers = workers_of(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "stopping after these rounds; once more to stop at once\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert all(map(gone, workers))


def test_two_at_once(begin: Begin, tmp_path: Path, whole: dict[str, bytes]) -> None:
    """One worker each, one store: every run is begun once, and both see all of them through."""
    study = load(tmp_path / "mine", **FOUR)
    note = tmp_path / "begun"
    noting = [f"{key}={value}" for key, value in plugin("Writes", into=str(note)).items()]
    both = [begin(study, "study.workers=1", *noting) for _ in range(2)]
    said = [process.communicate(timeout=100) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    begun = note.read_text().split()
    assert (len(begun), len(set(begun))) == (4, 2)  # four runs, two workers
    assert all("4 of 4 runs complete" in out for out, _ in said)
    with_names = [
        line.split(b",")[1:] for line in whole["table"].splitlines()
    ]  # the note is part of the config, so of the name
    assert [line.split(b",")[1:] for line in ends(study)["table"].splitlines()] == with_names
